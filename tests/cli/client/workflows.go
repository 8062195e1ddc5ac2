package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"segno.dev/tests/cli/client/api"
)

func workflows() *cobra.Command {
	return group("workflow", listWorkflows(), getWorkflow(), steps(), events(), cancel(), resume(), remove(), fork())
}

func listWorkflows() *cobra.Command {
	lists := map[string]string{
		"app-version": "appVersion", "id": "workflowIds", "name": "workflowName", "queue": "queueName",
		"status": "status", "user": "user",
	}
	names := map[string]string{
		"desc": "sortDesc", "limit": "limit", "offset": "offset", "queued": "queuesOnly",
		"since": "startTime", "until": "endTime",
	}
	for flag, name := range lists {
		names[flag] = name
	}
	one := inApp(command("list", 0, func(ctx context.Context, s *session, cmd *cobra.Command, _ []string) error {
		fields, err := body(cmd, names)
		if err != nil {
			return err
		}
		r, err := s.api.SearchWorkflowsWithBodyWithResponse(ctx, s.org, s.app, jsonType, fields)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "", func() (rows []string) {
			for _, workflow := range *r.JSON200 {
				rows = append(rows, workflow.WorkflowId)
			}
			return rows
		})
	}))
	for flag := range lists {
		one.Flags().StringSlice(flag, nil, "")
	}
	one.Flags().Bool("desc", false, "")
	one.Flags().Bool("queued", false, "")
	one.Flags().Int64("limit", 0, "")
	one.Flags().Int64("offset", 0, "")
	one.Flags().String("since", "", "")
	one.Flags().String("until", "", "")
	return one
}

func getWorkflow() *cobra.Command {
	return inApp(command("get ID", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.GetWorkflowWithResponse(ctx, s.org, s.app, args[0])
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "", func() []string { return []string{r.JSON200.WorkflowId} })
	}))
}

func steps() *cobra.Command {
	return inApp(command("steps ID", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.ListWorkflowStepsWithResponse(ctx, s.org, s.app, args[0], &api.ListWorkflowStepsParams{})
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "STEP", func() (rows []string) {
			for _, step := range *r.JSON200 {
				rows = append(rows, fmt.Sprint(step.StepId))
			}
			return rows
		})
	}))
}

func events() *cobra.Command {
	return inApp(command("events ID", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		r, err := s.api.ListWorkflowEventsWithResponse(ctx, s.org, s.app, args[0])
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON200, r.JSON200 == nil, "KEY", func() (rows []string) {
			for _, event := range *r.JSON200 {
				rows = append(rows, event.Key)
			}
			return rows
		})
	}))
}

func cancel() *cobra.Command {
	one := inApp(command("cancel ID...", -1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		all, err := ids(args)
		if err != nil {
			return err
		}
		fields := map[string]any{}
		if children, _ := cmd.Flags().GetBool("children"); children {
			fields["cancelChildren"] = true
		}
		if len(all) == 1 {
			text, err := encode(fields)
			if err != nil {
				return err
			}
			r, err := s.api.CancelWorkflowWithBodyWithResponse(ctx, s.org, s.app, all[0], jsonType, text)
			if err != nil {
				return err
			}
			return done(r, r.Body, nil)
		}
		fields["workflowIds"] = all
		text, err := encode(fields)
		if err != nil {
			return err
		}
		r, err := s.api.BulkCancelWorkflowsWithBodyWithResponse(ctx, s.org, s.app, jsonType, text)
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	}))
	one.Flags().Bool("children", false, "")
	return one
}

func resume() *cobra.Command {
	one := inApp(command("resume ID...", -1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		all, err := ids(args)
		if err != nil {
			return err
		}
		fields := map[string]any{}
		if cmd.Flags().Changed("queue") {
			fields["queueName"], _ = cmd.Flags().GetString("queue")
		}
		if len(all) > 1 {
			fields["workflowIds"] = all
		}
		text, err := encode(fields)
		if err != nil {
			return err
		}
		if len(all) == 1 {
			r, err := s.api.ResumeWorkflowWithBodyWithResponse(ctx, s.org, s.app, all[0], jsonType, text)
			if err != nil {
				return err
			}
			return done(r, r.Body, nil)
		}
		r, err := s.api.BulkResumeWorkflowsWithBodyWithResponse(ctx, s.org, s.app, jsonType, text)
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	}))
	one.Flags().String("queue", "", "")
	return one
}

func remove() *cobra.Command {
	one := inApp(command("delete ID...", -1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		all, err := ids(args)
		if err != nil {
			return err
		}
		children, _ := cmd.Flags().GetBool("children")
		if len(all) == 1 {
			r, err := s.api.DeleteWorkflowWithResponse(ctx, s.org, s.app, all[0], &api.DeleteWorkflowParams{DeleteChildren: &children})
			if err != nil {
				return err
			}
			return done(r, r.Body, nil)
		}
		text, err := encode(map[string]any{"workflowIds": all, "deleteChildren": children})
		if err != nil {
			return err
		}
		r, err := s.api.BulkDeleteWorkflowsWithBodyWithResponse(ctx, s.org, s.app, jsonType, text)
		if err != nil {
			return err
		}
		return done(r, r.Body, nil)
	}))
	one.Flags().Bool("children", false, "")
	one.Flags().Bool("force", false, "")
	return one
}

func fork() *cobra.Command {
	one := inApp(command("fork ID", 1, func(ctx context.Context, s *session, cmd *cobra.Command, args []string) error {
		fields, err := body(cmd, map[string]string{
			"app-version": "appVersion", "new-id": "newWorkflowId", "queue": "queueName", "start-step": "startStep",
		})
		if err != nil {
			return err
		}
		r, err := s.api.ForkWorkflowWithBodyWithResponse(ctx, s.org, s.app, args[0], jsonType, fields)
		if err != nil {
			return err
		}
		return show(cmd, r.StatusCode(), r.Body, r.JSON201, r.JSON201 == nil, "", func() []string { return []string{r.JSON201.WorkflowId} })
	}))
	one.Flags().String("app-version", "", "")
	one.Flags().String("new-id", "", "")
	one.Flags().String("queue", "", "")
	one.Flags().Int64("start-step", 0, "")
	return one
}
