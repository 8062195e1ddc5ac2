export type Language = 'python' | 'typescript' | 'go' | 'java' | 'rust';

export type Snippet = { label: string; install: string; code: string; note?: string };

/**
 * What to paste into an application so that it connects, per language. The versions named are the newest releases
 * whose client is part of the open-source package.
 */
export function snippet(language: Language, app: string, url: string, key: string): Snippet {
  switch (language) {
    case 'python':
      return {
        label: 'Python',
        install: 'pip install "dbos<3.3"',
        code: `import os
from dbos import DBOS

DBOS(config={
    "name": "${app}",
    "system_database_url": os.environ["DBOS_SYSTEM_DATABASE_URL"],
    "conductor_url": "${url}",
    "conductor_key": "${key}",
})

@DBOS.step()
def greet(name: str) -> str:
    return f"Hello, {name}!"

@DBOS.workflow()
def hello(name: str) -> str:
    return greet(name)

DBOS.launch()
print(hello("Ada"))
input("Connected. Enter ends the process.")`,
        note: 'Releases from 3.3 on moved this client out of the open-source package.',
      };
    case 'typescript':
      return {
        label: 'TypeScript',
        install: 'npm install "@dbos-inc/dbos-sdk@<5.3"',
        code: `import { DBOS } from "@dbos-inc/dbos-sdk";

async function helloFunction(name: string) {
  return DBOS.runStep(async () => \`Hello, \${name}!\`, { name: "greet" });
}
const hello = DBOS.registerWorkflow(helloFunction, { name: "hello" });

DBOS.setConfig({
  name: "${app}",
  systemDatabaseUrl: process.env.DBOS_SYSTEM_DATABASE_URL,
});
await DBOS.launch({
  conductorURL: "${url}",
  conductorKey: "${key}",
});
console.log(await hello("Ada"));`,
        note: 'Releases from 5.3 on moved this client out of the open-source package.',
      };
    case 'go':
      return {
        label: 'Go',
        install: 'go get github.com/dbos-inc/dbos-transact-golang@v1.2.0',
        code: `ctx, err := dbos.NewDBOSContext(context.Background(), dbos.Config{
	AppName:         "${app}",
	DatabaseURL:     os.Getenv("DBOS_SYSTEM_DATABASE_URL"),
	ConductorURL:    "${url}",
	ConductorAPIKey: "${key}",
})
if err != nil {
	log.Fatal(err)
}
dbos.RegisterWorkflow(ctx, hello)
if err := dbos.Launch(ctx); err != nil {
	log.Fatal(err)
}
defer dbos.Shutdown(ctx, 30*time.Second)`,
      };
    case 'java':
      return {
        label: 'Java',
        install: "implementation 'dev.dbos:transact:1.0.0'",
        code: `var config = DBOSConfig.defaults("${app}")
    .withDatabaseUrl(System.getenv("DBOS_SYSTEM_JDBC_URL"))
    .withDbUser(System.getenv("PGUSER"))
    .withDbPassword(System.getenv("PGPASSWORD"))
    .withConductorDomain("${url}")
    .withConductorKey("${key}");

var dbos = new DBOS(config);
dbos.launch();`,
      };
    case 'rust':
      return {
        label: 'Rust',
        install: 'cargo add segno',
        code: `use segno::{Ctx, Segno};

async fn hello(ctx: Ctx, name: String) -> segno::Result<String> {
    ctx.step("greet", || async { Ok(format!("Hello, {name}!")) }).await
}

#[tokio::main]
async fn main() -> segno::Result<()> {
    let app = Segno::named("${app}")
        .database_url(std::env::var("SEGNO_SYSTEM_DATABASE_URL")?)
        .workflow("hello", hello)
        .control_plane("${url}", "${key}")
        .launch()
        .await?;
    println!("{}", app.run(hello, "Ada".into()).await?);
    std::future::pending().await
}`,
      };
  }
}

export const LANGUAGES: Language[] = ['python', 'typescript', 'go', 'java', 'rust'];

/** The base that executors dial, from the address under which this page was reached. */
export function websocketUrl(server: string): string {
  return server.replace(/^http/, 'ws').replace(/\/$/, '');
}

/** Why a name cannot be an application's, or undefined when it can. */
export function nameFault(name: string): string | undefined {
  if (name === '') return undefined;
  if (!/^[a-z0-9_-]+$/.test(name)) return 'Lower-case letters, digits, - and _ only.';
  if (name.length < 3) return 'At least 3 characters.';
  if (name.length > 256) return 'At most 256 characters.';
  return undefined;
}
