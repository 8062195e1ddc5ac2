// The application of ../README.md on the official Go SDK.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
)

const wait = 60 * time.Second

var name = os.Getenv("APP_NAME")

func echo(ctx dbos.Context, given any) (any, error) {
	return dbos.RunAsStep(ctx, func(context.Context) (any, error) {
		return map[string]any{"from": name, "input": given}, nil
	}, dbos.WithStepName("answer"))
}

func fail(_ dbos.Context, given string) (any, error) {
	return nil, fmt.Errorf("broken on purpose: %s", given)
}

func talk(ctx dbos.Context, given string) (any, error) {
	if err := dbos.SetEvent(ctx, "mood", map[string]any{"of": given}); err != nil {
		return nil, err
	}
	for _, entry := range []any{"first", map[string]any{"second": 2}} {
		if err := dbos.WriteStream(ctx, "log", entry); err != nil {
			return nil, err
		}
	}
	if err := dbos.CloseStream(ctx, "log"); err != nil {
		return nil, err
	}
	heard, err := dbos.Recv[any](ctx, "mailbox", wait)
	return map[string]any{"heard": heard}, err
}

// An order is one line on stdin.
type order struct {
	Do       string `json:"do"`
	ID       string `json:"id"`
	To       string `json:"to"`
	Workflow string `json:"workflow"`
	Input    any    `json:"input"`
	Key      string `json:"key"`
	Status   string `json:"status"`
	From     uint   `json:"from"`
}

// obey carries an order out; the second value tells whether the first one is an answer.
func obey(ctx dbos.Context, given order) (any, bool, error) {
	switch given.Do {
	case "enqueue":
		_, err := dbos.Enqueue[any](ctx, given.To+"-work", given.Workflow, portable(given.Input),
			dbos.WithEnqueueWorkflowID(given.ID), dbos.WithEnqueueApplicationName(given.To))
		return nil, false, err
	case "result":
		handle, err := dbos.RetrieveWorkflow[any](ctx, given.ID)
		if err != nil {
			return nil, false, err
		}
		value, err := handle.GetResult()
		return value, true, err
	case "send":
		return nil, false, dbos.Send(ctx, given.ID, given.Input, given.Key, dbos.WithPortableSend())
	case "event":
		value, err := dbos.GetEvent[any](ctx, given.ID, given.Key, wait)
		return value, true, err
	case "stream":
		value, _, err := dbos.ReadStream[any](ctx, given.ID, given.Key)
		return value, true, err
	case "status":
		found, err := dbos.ListWorkflows(ctx, dbos.WithFilterWorkflowIDs(given.ID))
		if err != nil || len(found) != 1 {
			return nil, false, fmt.Errorf("%d workflows found: %w", len(found), err)
		}
		return found[0].Status, true, nil
	case "cancel":
		return nil, false, dbos.CancelWorkflow(ctx, given.ID)
	case "resume":
		_, err := dbos.ResumeWorkflow[any](ctx, given.ID)
		return nil, false, err
	case "fork":
		handle, err := dbos.ForkWorkflow[any](ctx, dbos.ForkWorkflowInput{OriginalWorkflowID: given.ID, StartStep: given.From})
		if err != nil {
			return nil, false, err
		}
		return handle.GetWorkflowID(), true, nil
	case "export":
		answer, err := conductor.ask(map[string]any{"type": "export_workflow", "workflow_id": given.ID, "export_children": true})
		return answer["serialized_workflow"], true, err
	case "import":
		_, err := conductor.ask(map[string]any{"type": "import_workflow", "serialized_workflow": given.Key})
		return nil, false, err
	case "list":
		return list(ctx, given)
	case "steps":
		steps, err := dbos.GetWorkflowSteps(ctx, given.ID)
		found := make([][2]any, 0, len(steps))
		for _, step := range steps {
			found = append(found, [2]any{step.StepID, step.StepName})
		}
		return found, true, err
	}
	return nil, false, fmt.Errorf("no such order: %q", given.Do)
}

func portable(input any) dbos.PortableWorkflowArgs {
	return dbos.PortableWorkflowArgs{PositionalArgs: []any{input}}
}

func list(client dbos.Client, given order) (any, bool, error) {
	filters := []dbos.ListWorkflowsOption{dbos.WithFilterWorkflowIDPrefix(given.Key)}
	if given.To != "" {
		filters = append(filters, dbos.WithFilterApplicationName(given.To))
	}
	if given.Status != "" {
		filters = append(filters, dbos.WithFilterStatus(dbos.WorkflowStatusType(given.Status)))
	}
	if given.Workflow != "" {
		filters = append(filters, dbos.WithFilterName(given.Workflow))
	}
	found, err := dbos.ListWorkflows(client, filters...)
	ids := make([]string, 0, len(found))
	for _, each := range found {
		ids = append(ids, each.ID)
	}
	return ids, true, err
}

func answer(message any) {
	line, err := json.Marshal(message)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("answer: %s\n", line)
}

func launch() (dbos.Context, error) {
	ctx, err := dbos.NewContext(context.Background(), dbos.Config{
		AppName:            name,
		ApplicationVersion: "interop-" + name,
		DatabaseURL:        os.Getenv("APP_DATABASE_URL"),
		ConductorURL:       conductor.listen(),
		ConductorAPIKey:    "interop",
	})
	if err != nil {
		return nil, err
	}
	dbos.RegisterWorkflow(ctx, echo, dbos.WithWorkflowName("echo"))
	dbos.RegisterWorkflow(ctx, fail, dbos.WithWorkflowName("fail"))
	dbos.RegisterWorkflow(ctx, talk, dbos.WithWorkflowName("talk"))
	if err := dbos.Launch(ctx); err != nil {
		return nil, err
	}
	_, err = dbos.RegisterQueue(ctx, name+"-work")
	return ctx, err
}

func main() {
	ctx, err := launch()
	if err != nil {
		log.Fatal(err)
	}
	answer(map[string]any{"ready": true})
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		var given order
		if err := json.Unmarshal(orders.Bytes(), &given); err != nil {
			log.Fatal(err)
		}
		value, answers, err := obey(ctx, given)
		switch {
		case err != nil:
			answer(map[string]any{"error": err.Error()})
		case answers:
			answer(map[string]any{"done": map[string]any{"value": value}})
		default:
			answer(map[string]any{"done": nil})
		}
	}
	os.Exit(0)
}
