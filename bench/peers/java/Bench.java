import dev.dbos.transact.DBOS;
import dev.dbos.transact.StartWorkflowOptions;
import dev.dbos.transact.config.DBOSConfig;
import dev.dbos.transact.workflow.QueueOptions;
import dev.dbos.transact.workflow.Workflow;
import dev.dbos.transact.workflow.WorkflowHandle;
import java.net.URI;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

/** The workloads of ../../README.md through the official Java SDK. */
public final class Bench {
  static final String QUEUE = "bench";

  public record StepOutput(int step, int value) {}

  public record Outcome(int input, int steps, int sum) {}

  public interface Workflows {
    Outcome zero(int input);

    Outcome one(int input);

    Outcome ten(int input);
  }

  public static final class WorkflowsImpl implements Workflows {
    private final DBOS dbos;

    WorkflowsImpl(DBOS dbos) {
      this.dbos = dbos;
    }

    private Outcome run(int input, int steps) {
      var sum = 0;
      for (var step = 0; step < steps; step++) {
        var number = step;
        sum += dbos.runStep(() -> new StepOutput(number, input + number), "add").value();
      }
      return new Outcome(input, steps, sum);
    }

    @Workflow(name = "zero")
    @Override
    public Outcome zero(int input) {
      return run(input, 0);
    }

    @Workflow(name = "one")
    @Override
    public Outcome one(int input) {
      return run(input, 1);
    }

    @Workflow(name = "ten")
    @Override
    public Outcome ten(int input) {
      return run(input, 10);
    }
  }

  private record Started(int input, long began, WorkflowHandle<Outcome, RuntimeException> handle) {}

  private final DBOS dbos;
  private final Workflows workflows;
  private final String workload;

  private Bench(DBOS dbos, Workflows workflows, String workload) {
    this.dbos = dbos;
    this.workflows = workflows;
    this.workload = workload;
  }

  private static void check(Outcome outcome, int input, int steps) {
    if (!outcome.equals(new Outcome(input, steps, input * steps + steps * (steps - 1) / 2))) {
      throw new IllegalStateException("the workflow of " + input + " answered " + outcome);
    }
  }

  private List<Long> share(AtomicInteger next, int n) {
    var latencies = new ArrayList<Long>();
    var enqueued = new ArrayList<Started>();
    for (var value = next.getAndIncrement(); value < n; value = next.getAndIncrement()) {
      var input = value;
      var began = System.nanoTime();
      if (workload.equals("W4")) {
        var options = new StartWorkflowOptions().withQueue(QUEUE);
        enqueued.add(
            new Started(input, began, dbos.startWorkflow(() -> workflows.one(input), options)));
        continue;
      }
      var steps = workload.equals("W1") ? 0 : workload.equals("W2") ? 1 : 10;
      var outcome =
          switch (steps) {
            case 0 -> workflows.zero(input);
            case 1 -> workflows.one(input);
            default -> workflows.ten(input);
          };
      latencies.add(System.nanoTime() - began);
      check(outcome, input, steps);
    }
    for (var started : enqueued) {
      var outcome = started.handle.getResult();
      latencies.add(System.nanoTime() - started.began);
      check(outcome, started.input, 1);
    }
    return latencies;
  }

  private List<Long> measure(int n, int concurrency)
      throws InterruptedException, ExecutionException {
    var next = new AtomicInteger();
    var latencies = new ArrayList<Long>();
    var callers = Executors.newFixedThreadPool(concurrency);
    try {
      var shares = new ArrayList<Future<List<Long>>>();
      for (var caller = 0; caller < concurrency; caller++) {
        shares.add(callers.submit(() -> share(next, n)));
      }
      for (var share : shares) {
        latencies.addAll(share.get());
      }
    } finally {
      callers.shutdown();
    }
    return latencies;
  }

  private static double percentile(List<Long> sorted, int percent) {
    return sorted.get((sorted.size() * percent + 99) / 100 - 1) / 1e6;
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> args = new HashMap<>();
    for (var at = 0; at + 1 < arguments.length; at += 2) {
      args.put(arguments[at], arguments[at + 1]);
    }
    var n = Integer.parseInt(args.get("--n"));
    var concurrency = Integer.parseInt(args.get("--concurrency"));
    var workload = args.get("--workload");
    var database = URI.create(args.get("--db"));
    var url = "jdbc:postgresql://%s:%d%s";
    var user = database.getUserInfo().split(":", 2);
    var config =
        DBOSConfig.defaults("bench")
            .withAppVersion("bench")
            .withDatabaseUrl(url.formatted(database.getHost(), database.getPort(), database.getPath()))
            .withDbUser(user[0])
            .withDbPassword(user.length > 1 ? user[1] : "");
    var dbos = new DBOS(config);
    var workflows = dbos.registerProxy(Workflows.class, new WorkflowsImpl(dbos));
    dbos.launch();
    dbos.registerQueue(QUEUE, QueueOptions.empty());
    var bench = new Bench(dbos, workflows, workload);
    bench.measure(Math.max(20, 2 * concurrency), concurrency);
    var began = System.nanoTime();
    var latencies = bench.measure(n, concurrency);
    var seconds = (System.nanoTime() - began) / 1e9;
    latencies.sort(null);
    System.out.printf(
        Locale.ROOT,
        "{\"sdk\": \"dbos-java\", \"version\": \"%s\", \"workload\": \"%s\", \"n\": %d, \"concurrency\": %d,"
            + " \"seconds\": %f, \"wf_per_s\": %f, \"p50_ms\": %f, \"p99_ms\": %f}%n",
        System.getProperty("bench.version"), workload, n, concurrency, seconds, n / seconds,
        percentile(latencies, 50), percentile(latencies, 99));
    dbos.shutdown();
    System.exit(0);
  }
}
