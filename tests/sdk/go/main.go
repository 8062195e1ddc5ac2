// The application of ../README.md in Go.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ---- the journal --------------------------------------------------------------------------------

var database *pgxpool.Pool

// execute runs a statement of the journal. Not with a workflow's context: what happened is written
// down also when the workflow may not go on.
func execute(statement string, values ...any) error {
	_, err := database.Exec(context.Background(), statement, values...)
	return err
}

// found tells whether the query has a row.
func found(query string, values ...any) (bool, error) {
	var one int
	err := database.QueryRow(context.Background(), query, values...).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// step runs work as a step of that name and records the attempt: that it began and, unless it fails,
// that it ended.
func step(ctx dbos.Context, name string, number int, work func(workflowID string) (string, error)) (string, error) {
	workflowID, err := dbos.GetWorkflowID(ctx)
	if err != nil {
		return "", err
	}
	recorded := func(context.Context) (string, error) {
		attempt := uuid.New()
		err := execute(
			"INSERT INTO app.effects (attempt, workflow_id, step, executor_id, app_version) VALUES ($1, $2, $3, $4, $5)",
			attempt, workflowID, number, dbos.GetExecutorID(ctx), dbos.GetApplicationVersion(ctx),
		)
		if err != nil {
			return "", err
		}
		result, err := work(workflowID)
		if err != nil {
			return "", err
		}
		return result, execute("UPDATE app.effects SET ended_at = clock_timestamp() WHERE attempt = $1", attempt)
	}
	return dbos.RunAsStep(ctx, recorded, dbos.WithStepName(name))
}

// ---- workflows ----------------------------------------------------------------------------------

func leg(ctx dbos.Context, number int) (string, error) {
	return step(ctx, "leg", number, func(workflowID string) (string, error) {
		for {
			passed, err := found("SELECT 1 FROM app.pace WHERE workflow_id = $1 AND steps >= $2", workflowID, number)
			if err != nil {
				return "", err
			}
			if passed {
				return fmt.Sprintf("leg %d", number), nil
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

func journey(ctx dbos.Context, steps int) (result string, err error) {
	workflowID, err := dbos.GetWorkflowID(ctx)
	if err != nil {
		return "", err
	}
	run := uuid.New()
	err = execute(
		"INSERT INTO app.runs (run, workflow_id, executor_id, app_version) VALUES ($1, $2, $3, $4)",
		run, workflowID, dbos.GetExecutorID(ctx), dbos.GetApplicationVersion(ctx),
	)
	if err != nil {
		return "", err
	}
	leftBy := "panic"
	defer func() {
		err = errors.Join(err, execute("UPDATE app.runs SET left_by = $1 WHERE run = $2", leftBy, run))
	}()

	results := make([]string, 0, steps)
	for number := 1; number <= steps; number++ {
		passed, err := leg(ctx, number)
		if err != nil {
			leftBy = fmt.Sprintf("%T", err)
			return "", err
		}
		results = append(results, passed)
	}
	leftBy = "return"
	return strings.Join(results, ", "), nil
}

func parent(ctx dbos.Context, steps int) (string, error) {
	child, err := dbos.RunWorkflow(ctx, journey, steps)
	if err != nil {
		return "", err
	}
	result, err := child.GetResult()
	if err != nil {
		return "", err
	}
	return "child: " + result, nil
}

func passage(ctx dbos.Context, name string) (string, error) {
	if _, err := step(ctx, "approach", 1, func(string) (string, error) { return "approached", nil }); err != nil {
		return "", err
	}
	_, err := step(ctx, "gate", 2, func(string) (string, error) {
		open, err := found("SELECT 1 FROM app.gates WHERE name = $1", name)
		if err == nil && !open {
			err = fmt.Errorf("gate %s is closed", name)
		}
		return "open", err
	})
	if err != nil {
		return "", err
	}
	if _, err := step(ctx, "arrive", 3, func(string) (string, error) { return "arrived", nil }); err != nil {
		return "", err
	}
	return "passed " + name, nil
}

func talk(ctx dbos.Context, name string) (string, error) {
	told := errors.Join(
		dbos.SetEvent(ctx, "mood", "curious"),
		dbos.SetEvent(ctx, "mood", "glad"),
		dbos.SetEvent(ctx, "name", name),
		dbos.WriteStream(ctx, "log", "first"),
		dbos.WriteStream(ctx, "log", "second"),
		dbos.CloseStream(ctx, "log"),
		dbos.WriteStream(ctx, "open", "only"),
	)
	if told != nil {
		return "", told
	}
	heard, err := dbos.Recv[string](ctx, "mailbox", 120*time.Second)
	if err != nil {
		return "", err
	}
	return heard, dbos.SetEvent(ctx, "heard", heard)
}

func tick(_ dbos.Context, input dbos.ScheduledWorkflowInput) (any, error) {
	given, err := dbos.DecodeScheduleContext[string](input)
	return "tick " + given, err
}

// ---- orders -------------------------------------------------------------------------------------

// An order is one line on stdin.
type order struct {
	Do string `json:"do"`

	Workflow        string          `json:"workflow"`
	ID              string          `json:"id"`
	Input           json.RawMessage `json:"input"`
	User            *string         `json:"user"`
	Roles           []string        `json:"roles"`
	Attributes      map[string]any  `json:"attributes"`
	Queue           *string         `json:"queue"`
	Priority        *uint           `json:"priority"`
	DeduplicationID *string         `json:"deduplication_id"`
	Partition       *string         `json:"partition"`

	To      string `json:"to"`
	Topic   string `json:"topic"`
	Message string `json:"message"`

	Name     string  `json:"name"`
	Cron     string  `json:"cron"`
	Context  *string `json:"context"`
	Timezone string  `json:"timezone"`
}

type application struct {
	dbos   dbos.Context
	queues map[string]dbos.Queue
}

func (a *application) obey(line []byte) error {
	var given order
	if err := json.Unmarshal(line, &given); err != nil {
		return err
	}
	switch given.Do {
	case "start":
		return a.start(given)
	case "send":
		return dbos.Send(a.dbos, given.To, given.Message, given.Topic)
	case "schedule":
		return a.schedule(given)
	}
	return fmt.Errorf("no such order: %q", given.Do)
}

func (a *application) start(given order) error {
	switch given.Workflow {
	case "journey":
		return run(a, journey, given)
	case "parent":
		return run(a, parent, given)
	case "passage":
		return run(a, passage, given)
	case "talk":
		return run(a, talk, given)
	}
	return fmt.Errorf("no such workflow: %q", given.Workflow)
}

func run[P any](a *application, workflow dbos.Workflow[P, string], given order) error {
	var input P
	if err := json.Unmarshal(given.Input, &input); err != nil {
		return err
	}
	options := []dbos.WorkflowOption{dbos.WithWorkflowID(given.ID)}
	if given.User != nil {
		options = append(options, dbos.WithAuthenticatedUser(*given.User), dbos.WithAuthenticatedRoles(given.Roles...))
	}
	if given.Attributes != nil {
		options = append(options, dbos.WithWorkflowAttributes(given.Attributes))
	}
	if given.Queue != nil {
		options = append(options, dbos.WithQueue(a.queues[*given.Queue]))
	}
	if given.Priority != nil {
		options = append(options, dbos.WithPriority(*given.Priority))
	}
	if given.DeduplicationID != nil {
		options = append(options, dbos.WithDeduplicationID(*given.DeduplicationID))
	}
	if given.Partition != nil {
		options = append(options, dbos.WithQueuePartitionKey(*given.Partition))
	}
	_, err := dbos.RunWorkflow(a.dbos, workflow, input, options...)
	return err
}

func (a *application) schedule(given order) error {
	spec := dbos.ScheduleSpec{
		ScheduleName: given.Name,
		Workflow:     tick,
		Schedule:     given.Cron,
		CronTimezone: given.Timezone,
	}
	if len(strings.Fields(given.Cron)) == 5 {
		spec.Schedule = "0 " + given.Cron // This SDK wants the seconds always.
	}
	if given.Context != nil {
		spec.Context = *given.Context
	}
	return dbos.CreateSchedule(a.dbos, spec)
}

// ---- the process --------------------------------------------------------------------------------

func configuration() (dbos.Config, error) {
	config := dbos.Config{
		AppName:                  os.Getenv("APP_NAME"),
		ApplicationVersion:       os.Getenv("APP_VERSION"),
		DatabaseURL:              os.Getenv("APP_DATABASE_URL"),
		ConductorURL:             os.Getenv("APP_CONDUCTOR_URL"),
		ConductorAPIKey:          os.Getenv("APP_CONDUCTOR_KEY"),
		SchedulerPollingInterval: time.Second,
	}
	err := json.Unmarshal([]byte(os.Getenv("APP_METADATA")), &config.ConductorExecutorMetadata)
	return config, err
}

func launch() (*application, error) {
	config, err := configuration()
	if err != nil {
		return nil, err
	}
	if database, err = pgxpool.New(context.Background(), config.DatabaseURL); err != nil {
		return nil, err
	}
	ctx, err := dbos.NewContext(context.Background(), config)
	if err != nil {
		return nil, err
	}
	dbos.RegisterWorkflow(ctx, journey, dbos.WithWorkflowName("journey"))
	dbos.RegisterWorkflow(ctx, parent, dbos.WithWorkflowName("parent"))
	dbos.RegisterWorkflow(ctx, passage, dbos.WithWorkflowName("passage"))
	dbos.RegisterWorkflow(ctx, talk, dbos.WithWorkflowName("talk"))
	dbos.RegisterWorkflow(ctx, tick, dbos.WithWorkflowName("tick"))
	dbos.SetAlertHandler(ctx, func(name, message string, metadata map[string]string) {
		err := execute(
			"INSERT INTO app.alerts (name, message, metadata, executor_id) VALUES ($1, $2, $3, $4)",
			name, message, metadata, dbos.GetExecutorID(ctx),
		)
		if err != nil {
			panic(err) // The one way to say that an alert was not handled.
		}
	})
	if err := dbos.Launch(ctx); err != nil {
		return nil, err
	}
	queues, err := registerQueues(ctx)
	return &application{dbos: ctx, queues: queues}, err
}

func registerQueues(ctx dbos.Context) (map[string]dbos.Queue, error) {
	limits := map[string][]dbos.QueueOption{
		"journeys": nil,
		"narrow": {
			dbos.WithGlobalConcurrency(2),
			dbos.WithWorkerConcurrency(1),
			dbos.WithRateLimiter(&dbos.RateLimiter{Limit: 50, Period: 10 * time.Second}),
			dbos.WithQueueBasePollingInterval(500 * time.Millisecond),
			dbos.WithPriorityEnabled(),
		},
		"lanes": {dbos.WithPartitionQueue(), dbos.WithGlobalConcurrency(1)},
	}
	queues := make(map[string]dbos.Queue)
	for name, options := range limits {
		queue, err := dbos.RegisterQueue(ctx, name, options...)
		if err != nil {
			return nil, err
		}
		queues[name] = queue
	}
	return queues, nil
}

func answer(message map[string]any) {
	line, err := json.Marshal(message)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("answer: %s\n", line)
}

func main() {
	app, err := launch()
	if err != nil {
		log.Fatal(err)
	}
	answer(map[string]any{
		"executor_id":   dbos.GetExecutorID(app.dbos),
		"app_version":   dbos.GetApplicationVersion(app.dbos),
		"metadata_only": false, // This SDK has no such mode.
	})
	orders := bufio.NewScanner(os.Stdin)
	orders.Buffer(nil, 16<<20)
	for orders.Scan() {
		if err := app.obey(orders.Bytes()); err != nil {
			answer(map[string]any{"error": err.Error()})
		} else {
			answer(map[string]any{"done": true})
		}
	}
	os.Exit(0)
}
