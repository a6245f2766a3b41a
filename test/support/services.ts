/**
 * The real servers that tests may use. `obtainServices.ts` finds or starts
 * them and leaves their addresses in the environment.
 *
 * ```ts
 * describe.skipIf(requireOrSkip("kafka", "postgres"))("…", () => { … kafkaBrokers! … })
 * ```
 */
const variables = {
  kafka: "KAFKA_BROKERS",
  postgres: "POSTGRES_URL",
  mariadb: "MARIADB_URL",
  mysql: "MYSQL_URL",
  redis: "REDIS_URL"
} as const

export type ServiceName = keyof typeof variables

/** Empty means missing, as unset does. */
const address = (name: ServiceName): string | undefined => process.env[variables[name]] || undefined

export const kafkaBrokers: Array<string> | undefined = address("kafka")?.split(",")
export const postgresUrl: string | undefined = address("postgres")
export const mariadbUrl: string | undefined = address("mariadb")
export const mysqlUrl: string | undefined = address("mysql")
export const redisUrl: string | undefined = address("redis")

/** Says whether to skip, because one of `names` is missing. With CI=true that fails instead. */
export const requireOrSkip = (...names: ReadonlyArray<ServiceName>): boolean => {
  const missing = names.filter((name) => address(name) === undefined)
  if (missing.length > 0 && process.env.CI === "true") {
    throw new Error(`With CI=true nothing is skipped, but there is no ${missing.join(" and no ")}`)
  }
  return missing.length > 0
}
