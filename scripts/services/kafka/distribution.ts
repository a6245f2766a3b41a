/**
 * Kafka's jars, fetched once from Maven Central and kept outside the
 * repository, with an archive of loaded classes (CDS) that halves the time
 * that a broker takes to start.
 */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdir, readdir, rename, rm } from "node:fs/promises"
import { homedir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { orUnavailable, Unavailable } from "../unavailable.ts"

const run = promisify(execFile)

const tooling = join(import.meta.dirname, "../../../tooling/kafka")

/** Named after the version in tooling/kafka/pom.xml. */
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "effect-events", "kafka-4.1.0")

export interface Distribution {
  readonly classPath: string
  /** Belongs to this version of Java and this class path; may not exist yet. */
  readonly classArchive: string
}

export const distribution = async (): Promise<Distribution> => {
  const java = await javaVersion()
  const jars = join(cache, "jars")
  if (!existsSync(jars)) {
    await fetchJars(jars)
  }
  const names = (await readdir(jars)).sort()
  return {
    classPath: names.map((name) => join(jars, name)).join(":"),
    classArchive: join(cache, `classes-${java}.jsa`)
  }
}

/** Starts a main class of Kafka: the arguments of `java`. */
export const javaArgs = (kafka: Distribution, mainClass: string, args: ReadonlyArray<string>): Array<string> => [
  "-Xmx512m",
  "-XX:+UseSerialGC",
  ...(existsSync(kafka.classArchive) ? [`-XX:SharedArchiveFile=${kafka.classArchive}`] : []),
  `-Dlog4j2.configurationFile=${join(tooling, "log4j2.xml")}`,
  "-cp",
  kafka.classPath,
  mainClass,
  ...args
]

const javaVersion = async (): Promise<string> => {
  const { stderr } = await run("java", ["-version"]).catch(orUnavailable("java (17 or newer)"))
  const version = /version "((\d+)[\w.]*)/.exec(stderr)
  if (version === null || Number(version[2]) < 17) {
    throw new Unavailable(`Kafka 4.1 needs Java 17 or newer; found: ${stderr.split("\n")[0]}`)
  }
  return version[1]!
}

/** Fetches into a folder of its own first: another process may be doing the same. */
const fetchJars = async (jars: string): Promise<void> => {
  await mkdir(cache, { recursive: true })
  const partial = `${jars}-${process.pid}`
  await run("mvn", [
    "--quiet",
    "--batch-mode",
    "--file",
    join(tooling, "pom.xml"),
    "dependency:copy-dependencies",
    "-DincludeScope=runtime",
    `-DoutputDirectory=${partial}`
  ]).catch(orUnavailable("mvn (Maven)"))
  await rename(partial, jars).catch(() => rm(partial, { recursive: true }))
}
