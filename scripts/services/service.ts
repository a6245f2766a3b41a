/** What the scripts need to know about one kind of server that tests and examples talk to. */
import type { LaunchOptions } from "./child.ts"

export interface Service {
  readonly name: "kafka" | "postgres" | "mariadb" | "mysql" | "redis"
  /** The environment variable that names the server, for programs and for whoever brings their own. */
  readonly variable: "KAFKA_BROKERS" | "POSTGRES_URL" | "MARIADB_URL" | "MYSQL_URL" | "REDIS_URL"
  /** Where one may already be running. */
  readonly defaultUrls: ReadonlyArray<string>
  readonly defaultPort: number
  /** Says whether a server answers at `url` in its protocol, and lets us in. */
  readonly answers: (url: string) => Promise<boolean>
  /** Asks it to end without waiting for its clients. */
  readonly stopSignal: NodeJS.Signals
  /** Fails with `Unavailable` when this machine lacks what it takes. */
  readonly start: (options: StartOptions) => Promise<StartedService>
  /** Ends the sentence "Kafka is missing: …". */
  readonly howToGet: string
}

export interface StartOptions {
  readonly port: number
  readonly lifetime: LaunchOptions["lifetime"]
}

export interface StartedService {
  readonly url: string
  readonly pid: number
  /** Holds all its data; nobody needs it after `stop`. */
  readonly folder: string
  readonly stop: () => Promise<void>
}
