import dev.dbos.transact.DBOS;
import dev.dbos.transact.StartWorkflowOptions;
import dev.dbos.transact.config.DBOSConfig;
import dev.dbos.transact.execution.DBOSExecutor;
import dev.dbos.transact.workflow.Field;
import dev.dbos.transact.workflow.QueueOptions;
import dev.dbos.transact.workflow.Workflow;
import dev.dbos.transact.workflow.WorkflowClassName;
import dev.dbos.transact.workflow.WorkflowSchedule;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.util.Map;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** The application of ../README.md in Java. */
public final class App {
  private static final JsonMapper JSON = new JsonMapper();
  private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

  /** The process's own id, known once it is launched; a workflow may run before that. */
  private static final CompletableFuture<String> EXECUTOR_ID = new CompletableFuture<>();

  // ---- the journal ------------------------------------------------------------------------------

  /** What the steps did, each statement committed at once. */
  record Journal(String url, String user, String appVersion) {
    /** A database as the contract names it, `postgresql://user@host:port/name`. */
    static Journal at(URI database, String appVersion) {
      var url = "jdbc:postgresql://%s:%d%s";
      url = url.formatted(database.getHost(), database.getPort(), database.getPath());
      return new Journal(url, database.getUserInfo(), appVersion);
    }

    private Connection connect() throws SQLException {
      return DriverManager.getConnection(url, user, "");
    }

    void execute(String statement, Object... values) {
      try (var connection = connect(); var prepared = prepared(connection, statement, values)) {
        prepared.execute();
      } catch (SQLException error) {
        throw new IllegalStateException(error);
      }
    }

    /** Waits until the query has a row, or looks only once. */
    boolean found(boolean wait, String query, Object... values) {
      try (var connection = connect(); var prepared = prepared(connection, query, values)) {
        while (true) {
          try (var rows = prepared.executeQuery()) {
            var found = rows.next();
            if (found || !wait) {
              return found;
            }
          }
          Thread.sleep(20);
        }
      } catch (SQLException | InterruptedException error) {
        throw new IllegalStateException(error);
      }
    }

    private static PreparedStatement prepared(Connection connection, String sql, Object... values)
        throws SQLException {
      var prepared = connection.prepareStatement(sql);
      for (int index = 0; index < values.length; index++) {
        prepared.setObject(index + 1, values[index]);
      }
      return prepared;
    }
  }

  // ---- workflows --------------------------------------------------------------------------------

  /** Workflows are called through this, so that the SDK sees the call. */
  public interface Workflows {
    String journey(int steps);

    String parent(int steps);

    String passage(String name);

    String talk(String name);

    String tick(Instant scheduledAt, Object context);
  }

  @WorkflowClassName("Workflows")
  public static final class WorkflowsImpl implements Workflows {
    private final DBOS dbos;
    private final Journal journal;
    private Workflows workflows;

    WorkflowsImpl(DBOS dbos, Journal journal) {
      this.dbos = dbos;
      this.journal = journal;
    }

    /** Runs a step and records the attempt: that it began and, unless it fails, that it ended. */
    private String step(String name, int number, Function<String, String> work) {
      var workflowId = DBOS.workflowId();
      return dbos.runStep(
          () -> {
            var attempt = UUID.randomUUID();
            journal.execute(
                "INSERT INTO app.effects (attempt, workflow_id, step, executor_id, app_version)"
                    + " VALUES (?, ?, ?, ?, ?)",
                attempt, workflowId, number, EXECUTOR_ID.join(), journal.appVersion);
            var result = work.apply(workflowId);
            journal.execute(
                "UPDATE app.effects SET ended_at = clock_timestamp() WHERE attempt = ?", attempt);
            return result;
          },
          name);
    }

    private String leg(int number) {
      return step("leg", number, workflowId -> {
        var mayPass = "SELECT 1 FROM app.pace WHERE workflow_id = ? AND steps >= ?";
        journal.found(true, mayPass, workflowId, number);
        return "leg " + number;
      });
    }

    @Workflow(name = "journey")
    @Override
    public String journey(int steps) {
      var run = UUID.randomUUID();
      journal.execute(
          "INSERT INTO app.runs (run, workflow_id, executor_id, app_version) VALUES (?, ?, ?, ?)",
          run, DBOS.workflowId(), EXECUTOR_ID.join(), journal.appVersion);
      var leftBy = "return";
      try {
        return IntStream.rangeClosed(1, steps).mapToObj(this::leg).collect(Collectors.joining(", "));
      } catch (Throwable error) {
        leftBy = error.getClass().getSimpleName();
        throw error;
      } finally {
        journal.execute("UPDATE app.runs SET left_by = ? WHERE run = ?", leftBy, run);
      }
    }

    @Workflow(name = "parent")
    @Override
    public String parent(int steps) {
      return "child: " + dbos.startWorkflow(() -> workflows.journey(steps)).getResult();
    }

    @Workflow(name = "passage")
    @Override
    public String passage(String name) {
      step("approach", 1, workflowId -> "approached");
      step("gate", 2, workflowId -> {
        if (!journal.found(false, "SELECT 1 FROM app.gates WHERE name = ?", name)) {
          throw new IllegalStateException("gate " + name + " is closed");
        }
        return "open";
      });
      step("arrive", 3, workflowId -> "arrived");
      return "passed " + name;
    }

    @Workflow(name = "talk")
    @Override
    public String talk(String name) {
      dbos.setEvent("mood", "curious");
      dbos.setEvent("mood", "glad");
      dbos.setEvent("name", name);
      dbos.writeStream("log", "first");
      dbos.writeStream("log", "second");
      dbos.closeStream("log");
      dbos.writeStream("open", "only");
      Optional<String> heard = dbos.recv("mailbox", Duration.ofSeconds(120));
      dbos.setEvent("heard", heard.orElseThrow());
      return heard.orElseThrow();
    }

    @Workflow(name = "tick")
    @Override
    public String tick(Instant scheduledAt, Object context) {
      return "tick " + context;
    }
  }

  // ---- orders -----------------------------------------------------------------------------------

  private final DBOS dbos;
  private final Workflows workflows;

  private App(DBOS dbos, Workflows workflows) {
    this.dbos = dbos;
    this.workflows = workflows;
  }

  private void obey(JsonNode order) {
    switch (text(order, "do")) {
      case "start" -> start(order);
      case "send" -> dbos.send(text(order, "to"), text(order, "message"), text(order, "topic"));
      case "schedule" -> schedule(order);
      default -> throw new IllegalArgumentException("no such order: " + order);
    }
  }

  /** The string under that key, or null without one. */
  private static String text(JsonNode order, String key) {
    var value = order.get(key);
    return value == null || value.isNull() ? null : value.stringValue();
  }

  private void start(JsonNode order) {
    var options =
        new StartWorkflowOptions(text(order, "id"))
            .withQueue(text(order, "queue"))
            .withDeduplicationId(text(order, "deduplication_id"))
            .withQueuePartitionKey(text(order, "partition"));
    if (order.hasNonNull("priority")) {
      options = options.withPriority(order.get("priority").intValue());
    }
    if (order.hasNonNull("user")) {
      var roles = JSON.convertValue(order.path("roles"), String[].class);
      options = options.withAuthentication(text(order, "user"), roles);
    }
    if (order.hasNonNull("attributes")) {
      options = options.withAttributes(object(order.get("attributes")));
    }
    var input = order.get("input");
    switch (text(order, "workflow")) {
      case "journey" -> dbos.startWorkflow(() -> workflows.journey(input.intValue()), options);
      case "parent" -> dbos.startWorkflow(() -> workflows.parent(input.intValue()), options);
      case "passage" -> dbos.startWorkflow(() -> workflows.passage(input.stringValue()), options);
      case "talk" -> dbos.startWorkflow(() -> workflows.talk(input.stringValue()), options);
      default -> throw new IllegalArgumentException("no such workflow: " + order);
    }
  }

  private void schedule(JsonNode order) {
    var cron = text(order, "cron");
    if (cron.trim().split("\\s+").length == 5) {
      cron = "0 " + cron; // This SDK wants the seconds always.
    }
    var schedule =
        new WorkflowSchedule(text(order, "name"), "tick", "Workflows", cron)
            .withContext(text(order, "context"));
    if (order.hasNonNull("timezone")) {
      schedule = schedule.withCronTimezone(ZoneId.of(text(order, "timezone")));
    }
    dbos.createSchedule(schedule);
  }

  @SuppressWarnings("unchecked")
  private static Map<String, Object> object(JsonNode node) {
    return JSON.convertValue(node, Map.class);
  }

  // ---- the process ------------------------------------------------------------------------------

  private static DBOSConfig configuration(Journal journal) {
    return DBOSConfig.defaults(System.getenv("APP_NAME"))
        .withAppVersion(System.getenv("APP_VERSION"))
        .withDatabaseUrl(journal.url)
        .withDbUser(journal.user)
        .withDbPassword("")
        .withConductorDomain(System.getenv("APP_CONDUCTOR_URL"))
        .withConductorKey(System.getenv("APP_CONDUCTOR_KEY"))
        .withConductorExecutorMetadata(object(JSON.readTree(System.getenv("APP_METADATA"))))
        .withSchedulerPollingInterval(Duration.ofSeconds(1));
  }

  private static App launch(Journal journal) throws ReflectiveOperationException {
    var dbos = new DBOS(configuration(journal));
    var implementation = new WorkflowsImpl(dbos, journal);
    var workflows = dbos.registerProxy(Workflows.class, implementation);
    implementation.workflows = workflows;
    dbos.registerAlertHandler(
        (name, message, metadata) ->
            journal.execute(
                "INSERT INTO app.alerts (name, message, metadata, executor_id)"
                    + " VALUES (?, ?, ?::jsonb, ?)",
                name, message, JSON.writeValueAsString(metadata), EXECUTOR_ID.join()));
    dbos.launch();
    EXECUTOR_ID.complete(executorIdOf(dbos));

    dbos.registerQueue("journeys", QueueOptions.empty());
    dbos.registerQueue(
        "narrow",
        QueueOptions.setConcurrency(2)
            .withWorkerConcurrency(Field.of(1))
            .withRateLimitMax(Field.of(50))
            .withRateLimitPeriod(Field.of(Duration.ofSeconds(10)))
            .withPollingInterval(Optional.of(Duration.ofMillis(500)))
            .withPriorityEnabled(Optional.of(true)));
    dbos.registerQueue(
        "lanes", QueueOptions.setConcurrency(1).withPartitionQueue(Optional.of(true)));
    return new App(dbos, workflows);
  }

  /** The SDK makes the id up and has no public way to ask for it. */
  private static String executorIdOf(DBOS dbos) throws ReflectiveOperationException {
    var getter = DBOS.class.getDeclaredMethod("getDbosExecutor");
    getter.setAccessible(true);
    return ((DBOSExecutor) getter.invoke(dbos)).executorId();
  }

  private static void answer(Map<String, Object> message) {
    OUT.println("answer: " + JSON.writeValueAsString(message));
  }

  public static void main(String[] arguments) throws IOException, ReflectiveOperationException {
    var appVersion = System.getenv("APP_VERSION");
    var app = launch(Journal.at(URI.create(System.getenv("APP_DATABASE_URL")), appVersion));
    answer(
        Map.of(
            "executor_id", EXECUTOR_ID.join(), "app_version", appVersion, "metadata_only", false));
    var orders = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line; (line = orders.readLine()) != null; ) {
      try {
        app.obey(JSON.readTree(line));
        answer(Map.of("done", true));
      } catch (Exception error) {
        answer(Map.of("error", error.toString()));
      }
    }
    Runtime.getRuntime().halt(0);
  }
}
