// The workloads of ../../README.md through the official Go SDK.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
)

const queueName = "bench"

type stepOutput struct {
	Step  int `json:"step"`
	Value int `json:"value"`
}

type outcome struct {
	Input int `json:"input"`
	Steps int `json:"steps"`
	Sum   int `json:"sum"`
}

func run(ctx dbos.Context, input, steps int) (outcome, error) {
	sum := 0
	for step := range steps {
		output, err := dbos.RunAsStep(ctx, func(context.Context) (stepOutput, error) {
			return stepOutput{Step: step, Value: input + step}, nil
		}, dbos.WithStepName("add"))
		if err != nil {
			return outcome{}, err
		}
		sum += output.Value
	}
	return outcome{Input: input, Steps: steps, Sum: sum}, nil
}

func zero(ctx dbos.Context, input int) (outcome, error) { return run(ctx, input, 0) }
func one(ctx dbos.Context, input int) (outcome, error)  { return run(ctx, input, 1) }
func ten(ctx dbos.Context, input int) (outcome, error)  { return run(ctx, input, 10) }

func check(got outcome, input, steps int) {
	expected := outcome{Input: input, Steps: steps, Sum: input*steps + steps*(steps-1)/2}
	if got != expected {
		log.Fatalf("the workflow of %d answered %+v", input, got)
	}
}

type bench struct {
	ctx      dbos.Context
	queue    dbos.Queue
	workload string
}

// started is a workflow that was begun at a time.
type started struct {
	input  int
	began  time.Time
	handle dbos.WorkflowHandle[outcome]
}

func (b *bench) begin(workflow dbos.Workflow[int, outcome], input int, options ...dbos.WorkflowOption) started {
	began := time.Now()
	handle, err := dbos.RunWorkflow(b.ctx, workflow, input, options...)
	if err != nil {
		log.Fatal(err)
	}
	return started{input, began, handle}
}

func (s started) end(steps int) time.Duration {
	got, err := s.handle.GetResult()
	if err != nil {
		log.Fatal(err)
	}
	took := time.Since(s.began)
	check(got, s.input, steps)
	return took
}

func (b *bench) share(next *atomic.Int64, n int) []time.Duration {
	latencies, enqueued := []time.Duration{}, []started{}
	for input := int(next.Add(1) - 1); input < n; input = int(next.Add(1) - 1) {
		switch b.workload {
		case "W1":
			latencies = append(latencies, b.begin(zero, input).end(0))
		case "W2":
			latencies = append(latencies, b.begin(one, input).end(1))
		case "W3":
			latencies = append(latencies, b.begin(ten, input).end(10))
		case "W4":
			enqueued = append(enqueued, b.begin(one, input, dbos.WithQueue(b.queue)))
		default:
			log.Fatal("no such workload")
		}
	}
	for _, each := range enqueued {
		latencies = append(latencies, each.end(1))
	}
	return latencies
}

func (b *bench) measure(n, concurrency int) []time.Duration {
	var next atomic.Int64
	var callers sync.WaitGroup
	shares := make([][]time.Duration, concurrency)
	for caller := range concurrency {
		callers.Go(func() { shares[caller] = b.share(&next, n) })
	}
	callers.Wait()
	return slices.Concat(shares...)
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	for _, module := range info.Deps {
		if module.Path == "github.com/dbos-inc/dbos-transact-golang" {
			return module.Version
		}
	}
	return "unknown"
}

func launch(url string) (*bench, error) {
	ctx, err := dbos.NewContext(context.Background(), dbos.Config{
		AppName:            "bench",
		ApplicationVersion: "bench",
		DatabaseURL:        url,
	})
	if err != nil {
		return nil, err
	}
	dbos.RegisterWorkflow(ctx, zero, dbos.WithWorkflowName("zero"))
	dbos.RegisterWorkflow(ctx, one, dbos.WithWorkflowName("one"))
	dbos.RegisterWorkflow(ctx, ten, dbos.WithWorkflowName("ten"))
	if err := dbos.Launch(ctx); err != nil {
		return nil, err
	}
	queue, err := dbos.RegisterQueue(ctx, queueName)
	return &bench{ctx: ctx, queue: queue}, err
}

func main() {
	workload := flag.String("workload", "", "W1, W2, W3 or W4")
	n := flag.Int("n", 0, "workflows to measure")
	concurrency := flag.Int("concurrency", 0, "callers")
	url := flag.String("db", "", "database")
	flag.Parse()
	b, err := launch(*url)
	if err != nil {
		log.Fatal(err)
	}
	b.workload = *workload
	b.measure(max(20, 2**concurrency), *concurrency)
	began := time.Now()
	latencies := b.measure(*n, *concurrency)
	seconds := time.Since(began).Seconds()
	slices.Sort(latencies)
	percentile := func(percent int) float64 {
		return latencies[(len(latencies)*percent+99)/100-1].Seconds() * 1000
	}
	line, err := json.Marshal(map[string]any{
		"sdk": "dbos-go", "version": version(), "workload": *workload, "n": *n, "concurrency": *concurrency,
		"seconds": seconds, "wf_per_s": float64(*n) / seconds, "p50_ms": percentile(50), "p99_ms": percentile(99),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
	os.Exit(0)
}
