package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"segno.dev/tests/cli/client/api"
)

const jsonType = "application/json"

type action func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error

// command makes a command that takes `count` arguments (-1: one or more).
func command(use string, count int, run action) *cobra.Command {
	one := &cobra.Command{Use: use}
	one.Args = func(_ *cobra.Command, args []string) error {
		if (count >= 0 && len(args) != count) || (count < 0 && len(args) == 0) {
			return usage{fmt.Errorf("%s: wrong number of arguments", use)}
		}
		return nil
	}
	one.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := connect(cmd)
		if err != nil {
			return err
		}
		return run(cmd.Context(), s, cmd, args)
	}
	return one
}

func group(name string, commands ...*cobra.Command) *cobra.Command {
	all := &cobra.Command{Use: name}
	all.AddCommand(commands...)
	return all
}

func output(one *cobra.Command) *cobra.Command {
	one.Flags().StringP("output", "o", "table", "table, json or ids")
	return one
}

func inApp(one *cobra.Command) *cobra.Command {
	one.Flags().StringP("app", "a", "", "application")
	return output(one)
}

func apps() *cobra.Command {
	list := output(command("list", 0, func(ctx context.Context, s *session, cmd *cobra.Command, _ []string) error {
		r, err := s.api.ListAppsWithResponse(ctx, s.org)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "NAME", func() (rows []string) {
			for _, app := range *r.JSON200 {
				rows = append(rows, app.Name)
			}
			return rows
		})
	}))
	get := output(command("get NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.GetAppWithResponse(ctx, s.org, args[0])
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "", func() []string {
			return []string{"Name: " + r.JSON200.Name, fmt.Sprint("Status: ", r.JSON200.Status)}
		})
	}))
	register := command("register NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		fields, err := body(cmd, map[string]string{"private-mode": "privateMode"})
		if err != nil {
			return err
		}
		r, err := s.api.RegisterAppWithBodyWithResponse(ctx, s.org, args[0], jsonType, fields)
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	})
	register.Flags().Bool("private-mode", false, "")
	update := command("update NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		fields, err := body(cmd, map[string]string{
			"executor-timeout-secs": "executorTimeoutSecs", "gc-rows-threshold": "gcRowsThreshold",
			"gc-time-threshold-ms": "gcTimeThresholdMs", "global-timeout-ms": "globalTimeoutMs",
			"private-mode": "privateMode",
		})
		if err != nil {
			return err
		}
		r, err := s.api.UpdateAppWithBodyWithResponse(ctx, s.org, args[0], jsonType, fields)
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	})
	for _, name := range []string{"executor-timeout-secs", "gc-rows-threshold", "gc-time-threshold-ms", "global-timeout-ms"} {
		update.Flags().Int64(name, 0, "")
	}
	update.Flags().Bool("private-mode", false, "")
	remove := command("delete NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		if force, _ := cmd.Flags().GetBool("force"); !force {
			return usage{fmt.Errorf("deleting needs --force")}
		}
		r, err := s.api.DeleteAppWithResponse(ctx, s.org, args[0])
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	})
	remove.Flags().Bool("force", false, "")
	return group("app", list, get, register, update, remove, executors(), versions(), setVersion(), metrics())
}

func executors() *cobra.Command {
	return output(command("executors NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.ListExecutorsWithResponse(ctx, s.org, args[0])
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "EXECUTOR", func() (rows []string) {
			for _, executor := range *r.JSON200 {
				rows = append(rows, executor.ExecutorId)
			}
			return rows
		})
	}))
}

func versions() *cobra.Command {
	return output(command("versions NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.ListAppVersionsWithResponse(ctx, s.org, args[0])
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "VERSION", func() (rows []string) {
			for _, version := range *r.JSON200 {
				rows = append(rows, version.VersionName)
			}
			return rows
		})
	}))
}

func setVersion() *cobra.Command {
	return command("set-version NAME VERSION", 2, func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
		fields, err := encode(map[string]string{"versionName": args[1]})
		if err != nil {
			return err
		}
		r, err := s.api.SetLatestAppVersionWithBodyWithResponse(ctx, s.org, args[0], jsonType, fields)
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	})
}

func metrics() *cobra.Command {
	one := output(command("metrics NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		since, err := cmd.Flags().GetDuration("since")
		if err != nil {
			return usage{err}
		}
		now := time.Now()
		window := api.ListMetricsParams{StartTime: now.Add(-since), EndTime: now}
		r, err := s.api.ListMetricsWithResponse(ctx, s.org, args[0], &window)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "METRIC", func() []string { return nil })
	}))
	one.Flags().Duration("since", 24*time.Hour, "")
	return one
}

func keys() *cobra.Command {
	create := output(command("create NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		fields, err := body(cmd, map[string]string{"app": "appNames", "permission": "permissions"})
		if err != nil {
			return err
		}
		r, err := s.api.CreateTokenWithBodyWithResponse(ctx, s.org, args[0], jsonType, fields)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON201, r.JSON201 == nil, "", func() []string {
			return []string{r.JSON201.Token}
		})
	}))
	create.Flags().StringSlice("app", nil, "")
	create.Flags().StringSlice("permission", nil, "")
	list := output(command("list", 0, func(ctx context.Context, s *session, cmd *cobra.Command, _ []string) error {
		r, err := s.api.ListTokensWithResponse(ctx, s.org)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "NAME", func() (rows []string) {
			for _, key := range *r.JSON200 {
				rows = append(rows, key.TokenName)
			}
			return rows
		})
	}))
	remove := command("delete NAME", 1, func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
		r, err := s.api.DeleteTokenWithResponse(ctx, s.org, args[0])
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	})
	remove.Flags().Bool("force", false, "")
	rename := command("rename NAME NEW", 2, func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
		fields, err := encode(map[string]string{"newName": args[1]})
		if err != nil {
			return err
		}
		r, err := s.api.UpdateTokenWithBodyWithResponse(ctx, s.org, args[0], jsonType, fields)
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	})
	return group("api-key", create, list, remove, rename)
}

func permissions() *cobra.Command {
	return group("permission", output(command("list", 0, func(ctx context.Context, s *session, cmd *cobra.Command, _ []string) error {
		r, err := s.api.ListPermissionsWithResponse(ctx, s.org)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "", func() []string { return *r.JSON200 })
	})))
}

func queues() *cobra.Command {
	list := inApp(command("list", 0, func(ctx context.Context, s *session, cmd *cobra.Command, _ []string) error {
		r, err := s.api.ListQueuesWithResponse(ctx, s.org, s.app)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "NAME", func() (rows []string) {
			for _, queue := range *r.JSON200 {
				rows = append(rows, queue.Name)
			}
			return rows
		})
	}))
	get := inApp(command("get NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.GetQueueWithResponse(ctx, s.org, s.app, args[0])
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "", func() []string { return []string{r.JSON200.Name} })
	}))
	return group("queue", list, get)
}

func schedules() *cobra.Command {
	list := inApp(command("list", 0, func(ctx context.Context, s *session, cmd *cobra.Command, _ []string) error {
		r, err := s.api.ListSchedulesWithResponse(ctx, s.org, s.app, &api.ListSchedulesParams{})
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "NAME", func() (rows []string) {
			for _, schedule := range *r.JSON200 {
				rows = append(rows, schedule.ScheduleName)
			}
			return rows
		})
	}))
	get := inApp(command("get NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.GetScheduleWithResponse(ctx, s.org, s.app, args[0])
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "", func() []string { return []string{r.JSON200.ScheduleName} })
	}))
	pause := inApp(command("pause NAME", 1, func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
		r, err := s.api.PauseScheduleWithResponse(ctx, s.org, s.app, args[0])
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	}))
	resume := inApp(command("resume NAME", 1, func(ctx context.Context, s *session, _ *cobra.Command, args []string) error {
		r, err := s.api.ResumeScheduleWithResponse(ctx, s.org, s.app, args[0])
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	}))
	trigger := inApp(command("trigger NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.TriggerScheduleWithResponse(ctx, s.org, s.app, args[0])
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON201, r.JSON201 == nil, "", func() []string { return []string{r.JSON201.WorkflowId} })
	}))
	backfill := inApp(command("backfill NAME", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		fields, err := body(cmd, map[string]string{"since": "startTime", "until": "endTime"})
		if err != nil {
			return err
		}
		r, err := s.api.BackfillScheduleWithBodyWithResponse(ctx, s.org, s.app, args[0], jsonType, fields)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "", func() []string { return r.JSON200.WorkflowIds })
	}))
	backfill.Flags().String("since", "", "")
	backfill.Flags().String("until", "", "")
	return group("schedule", list, get, pause, resume, trigger, backfill)
}

func whoami() *cobra.Command {
	return output(command("whoami", 0, func(ctx context.Context, s *session, cmd *cobra.Command, _ []string) error {
		if os.Getenv("DBOS_TOKEN") == "" {
			fmt.Println("local")
			return nil
		}
		r, err := s.api.GetCurrentUserWithResponse(ctx)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "", func() []string {
			return []string{r.JSON200.Name, string(r.JSON200.Email)}
		})
	}))
}

// ids are the arguments, or the lines of standard input for a single "-".
func ids(args []string) ([]string, error) {
	if len(args) != 1 || args[0] != "-" {
		return args, nil
	}
	var all []string
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if id := strings.TrimSpace(lines.Text()); id != "" {
			all = append(all, id)
		}
	}
	if err := lines.Err(); err != nil && err != io.EOF {
		return nil, err
	}
	if len(all) == 0 {
		return nil, usage{fmt.Errorf("no workflow ids")}
	}
	return all, nil
}
