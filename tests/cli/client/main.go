// A command-line client over the Go code that oapi-codegen makes from the served OpenAPI document.
//
// Its commands, flags, environment and exit codes are those of dbosctl as its users know them, so
// that the acceptance checks run with either program. What it adds is the reader: structs generated
// from today's document, which fail on a missing field, a null where none may be, or a number of the
// wrong kind.
//
// Environment: DBOS_URL (required), DBOS_TOKEN, DBOS_ORG (default local), DBOS_APP.
// Exit codes: 0; 1 failure; 2 usage; 3 no or refused credential; 4 not found.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"segno.dev/tests/cli/client/api"
)

// timeout bounds each call, as dbosctl's does.
const timeout = 30 * time.Second

// session is what every command works with.
type session struct {
	api *api.ClientWithResponses
	org string
	app string
}

// refused is an answer other than the documented success.
type refused struct {
	status int
	body   []byte
}

func (r *refused) Error() string {
	var problem api.ErrorModel
	if json.Unmarshal(r.body, &problem) == nil && problem.Detail != nil {
		return fmt.Sprintf("%d: %s", r.status, *problem.Detail)
	}
	return fmt.Sprintf("%d: %s", r.status, r.body)
}

// usage is a mistake in the command line.
type usage struct{ error }

func exitCode(err error) int {
	var answer *refused
	switch {
	case errors.As(err, &usage{}):
		return 2
	case errors.As(err, &answer) && answer.status == http.StatusUnauthorized:
		return 3
	case errors.As(err, &answer) && answer.status == http.StatusNotFound:
		return 4
	}
	return 1
}

func connect(cmd *cobra.Command) (*session, error) {
	base := os.Getenv("DBOS_URL")
	if base == "" {
		return nil, errors.New("DBOS_URL is not set")
	}
	doer := &http.Client{Timeout: timeout}
	bearer := func(_ context.Context, request *http.Request) error {
		if token := os.Getenv("DBOS_TOKEN"); token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		return nil
	}
	client, err := api.NewClientWithResponses(base, api.WithHTTPClient(doer), api.WithRequestEditorFn(bearer))
	if err != nil {
		return nil, err
	}
	one := &session{api: client, org: os.Getenv("DBOS_ORG"), app: os.Getenv("DBOS_APP")}
	if one.org == "" {
		one.org = "local"
	}
	if flag := cmd.Flags().Lookup("app"); flag != nil && flag.Value.Type() == "string" && flag.Changed {
		one.app = flag.Value.String()
	}
	return one, nil
}

// answer is what all generated responses have in common.
type answer interface{ StatusCode() int }

// show prints what a call returned: the decoded body as JSON or, as a table, header and rows.
func show(cmd *cobra.Command, status int, raw []byte, decoded any, missing bool, header string, rows func() []string) error {
	if missing {
		if status >= 200 && status < 300 {
			return fmt.Errorf("the answer %d is not the documented one: %s", status, raw)
		}
		return &refused{status, raw}
	}
	if format, _ := cmd.Flags().GetString("output"); format == "json" {
		text, err := json.MarshalIndent(decoded, "", "  ")
		if err != nil {
			return err
		}
		fmt.Println(string(text))
		return nil
	}
	if header != "" {
		fmt.Println(header)
	}
	for _, row := range rows() {
		fmt.Println(row)
	}
	return nil
}

// done accepts any success of an operation that answers nothing.
func done(response answer, raw []byte, err error) error {
	if err != nil {
		return err
	}
	if status := response.StatusCode(); status < 200 || status > 299 {
		return &refused{status, raw}
	}
	return nil
}

// body is a JSON body of the flags that were given, under the API's names.
func body(cmd *cobra.Command, names map[string]string) (io.Reader, error) {
	fields := map[string]any{}
	for flag, name := range names {
		if !cmd.Flags().Changed(flag) {
			continue
		}
		value, err := flagValue(cmd, flag)
		if err != nil {
			return nil, usage{err}
		}
		fields[name] = value
	}
	return encode(fields)
}

func encode(fields any) (io.Reader, error) {
	text, err := json.Marshal(fields)
	return strings.NewReader(string(text)), err
}

func flagValue(cmd *cobra.Command, flag string) (any, error) {
	set := cmd.Flags()
	switch set.Lookup(flag).Value.Type() {
	case "bool":
		return set.GetBool(flag)
	case "int64":
		return set.GetInt64(flag)
	case "stringSlice":
		return set.GetStringSlice(flag)
	}
	text, err := set.GetString(flag)
	if err == nil && (flag == "since" || flag == "until") {
		return moment(text)
	}
	return text, err
}

// moment reads a time, or a duration before now.
func moment(text string) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return time.Now().Add(-ago), nil
	}
	return time.Parse(time.RFC3339Nano, text)
}

func main() {
	root := &cobra.Command{Use: "client", SilenceUsage: true, SilenceErrors: true}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	root.AddCommand(apps(), keys(), permissions(), workflows(), queues(), schedules(), whoami())
	if err := root.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(exitCode(err))
	}
}
