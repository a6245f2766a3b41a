/** The arrows of the house, read from the imports: a line of `house` may import lines above it, never below. */
import { assert, describe, it } from "@effect/vitest"
import { globSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"

/** Rooms and files in the order in which they build on each other. A file belongs to the first line that it matches. */
const house: ReadonlyArray<readonly [name: string, pattern: RegExp]> = [
  ["contracts", /^(Broker|MessageStore)\.ts$/],
  ["codecs", /^Codec\.ts$/],
  ["topics", /^Topic\.ts$/],
  ["wire", /^internal\/wire\/(messageId|partitioner|traceContext|envelope|deadLetter)\.ts$/],
  ["events", /^Event\.ts$/],
  ["outgoing", /^internal\/wire\/outgoing\.ts$/],
  ["ranges of options", /^internal\/(limit|pauseReason)\.ts$/],
  ["options", /^(Batching|FailurePolicy|Health)\.ts$/],
  ["groups", /^ConsumerGroup\.ts$/],
  ["engine events", /^internal\/(engineEvent|metrics|thrown)\.ts$/],
  ["transactions", /^internal\/transaction\.ts$/],
  ["publisher room", /^internal\/publisher\//],
  ["outbox room", /^internal\/outbox\//],
  ["consumer room", /^internal\/consumer\//],
  ["broadcast room", /^internal\/broadcast\//],
  ["dead letter room", /^internal\/deadLetter\//],
  ["fronts", /^(Publisher|Outbox|Consumer|Broadcast|DeadLetter)\.ts$/],
  ["failpoints", /^Testing\.ts$/],
  ["barrel", /^index\.ts$/]
]

/** What must stay free of effects, beside every file whose header says that it is pure. */
const pure = [
  "Topic.ts",
  "Codec.ts",
  "internal/consumer/order/watermark.ts",
  "internal/consumer/order/lanes.ts",
  "internal/consumer/order/assignment.ts",
  "internal/wire/partitioner.ts",
  "internal/wire/messageId.ts",
  "internal/wire/traceContext.ts",
  "internal/wire/envelope.ts",
  "internal/wire/deadLetter.ts",
  "internal/outbox/lease.ts",
  "internal/outbox/parts.ts"
]

/** The modules of Effect that describe values and run nothing. */
const plainModules = ["effect/Schema", "effect/SchemaAST", "effect/Array", "effect/Option", "effect/Predicate"]

const maxCoreLines = 250
const maxLines = 400

interface Import {
  readonly specifier: string
  readonly typeOnly: boolean
  /** Below `src`, if it is one of ours. */
  readonly file: string | undefined
}

interface Source {
  readonly file: string
  readonly text: string
  readonly header: string
  readonly imports: ReadonlyArray<Import>
}

const src = join(import.meta.dirname, "..", "src")

const statement =
  /^(?:import|export)\s+(type\s+)?[^"';]*?\bfrom\s+"([^"]+)"|^import\s+"([^"]+)"|\bimport\("([^"]+)"\)/gm

/** Comments show code that imports, too. */
const withoutComments = (text: string): string =>
  text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/^\s*\/\/.*$/gm, "")

const importsOf = (file: string, text: string): ReadonlyArray<Import> =>
  Array.from(withoutComments(text).matchAll(statement), (match) => {
    const specifier = (match[2] ?? match[3] ?? match[4])!
    return {
      specifier,
      typeOnly: match[1] !== undefined,
      file: specifier.startsWith(".") ? normalize(join(dirname(file), specifier)) : undefined
    }
  })

const sources: ReadonlyArray<Source> = globSync("**/*.ts", { cwd: src }).sort().map((file) => {
  const text = readFileSync(join(src, file), "utf8")
  return { file, text, header: /^\/\*\*[\s\S]*?\*\//.exec(text)?.[0] ?? "", imports: importsOf(file, text) }
})

const isPure = ({ file, header }: Source): boolean => pure.includes(file) || /\bPure\b/.test(header)

/** Reports what is forbidden, a line each. */
const forbidden = (why: (source: Source, imported: Import) => string | undefined): Array<string> =>
  sources.flatMap((source) =>
    source.imports.flatMap((imported) => {
      const reason = why(source, imported)
      return reason === undefined ? [] : [`${source.file} imports ${imported.specifier}: ${reason}`]
    })
  )

const none = (lines: ReadonlyArray<string>): void => assert.deepStrictEqual(lines, [])

const lineOf = (file: string): number => house.findIndex(([, pattern]) => pattern.test(file))

/** The room of an inside: `internal/consumer` with the smaller ones that it is divided into. */
const roomOf = (file: string): string => file.split("/").slice(0, 2).join("/")

const isLayer = (file: string): boolean => file.startsWith("Layers/")

/** The Layer whose file or room this is. */
const layerRooms: { readonly [front: string]: string } = { Memory: "memory", KafkaJs: "kafkajs", SqlStore: "sql" }

const roomOfLayer = (file: string): string => {
  const room = /^Layers\/internal\/([^/]+)\//.exec(file)?.[1]
  if (room !== undefined) return room
  const front = /^Layers\/([^/]+)\.ts$/.exec(file)![1]!
  return layerRooms[front] ?? front.toLowerCase()
}

describe("the house", () => {
  it("has been read: there are files, and imports of every kind are seen", () => {
    assert.isAbove(sources.length, 40)
    for (const file of pure) assert.isTrue(sources.some((source) => source.file === file), `${file} is gone`)
    const sample = [
      "import * as Effect from \"effect/Effect\"",
      "import type { A } from \"./a.ts\"",
      "export {",
      "  /** Documented. */",
      "  B",
      "} from \"./b.ts\"",
      "export * as C from \"./c.ts\"",
      "import \"./d.ts\"",
      "// import \"./not.ts\"",
      "/** import { X } from \"./not.ts\" */",
      "const later = () => import(\"./e.ts\")"
    ].join("\n")
    assert.deepStrictEqual(importsOf("room/file.ts", sample), [
      { specifier: "effect/Effect", typeOnly: false, file: undefined },
      { specifier: "./a.ts", typeOnly: true, file: "room/a.ts" },
      { specifier: "./b.ts", typeOnly: false, file: "room/b.ts" },
      { specifier: "./c.ts", typeOnly: false, file: "room/c.ts" },
      { specifier: "./d.ts", typeOnly: false, file: "room/d.ts" },
      { specifier: "./e.ts", typeOnly: false, file: "room/e.ts" }
    ])
  })

  it("has a place for every file", () => {
    none(sources.filter(({ file }) => !isLayer(file) && lineOf(file) < 0).map(({ file }) => file))
  })

  it("points one way only: a file imports what stands above it, or its own room", () => {
    none(forbidden((source, { file, typeOnly }) => {
      if (file === undefined || isLayer(source.file) || isLayer(file)) return undefined
      const [from, to] = [lineOf(source.file), lineOf(file)]
      if (to < from) return undefined
      if (to === from && roomOf(source.file) === roomOf(file) && source.file.startsWith("internal/")) return undefined
      // A contract's type may be named from above it.
      if (typeOnly && source.file === "Topic.ts" && file === "Broker.ts") return undefined
      return `${house[to]?.[0]} stand${to === from ? " beside" : "s below"} ${house[from]?.[0]}`
    }))
  })

  it("has no circle of imports, not even of types", () => {
    const byFile = new Map(sources.map((source) => [source.file, source]))
    const done = new Set<string>()
    const circles: Array<string> = []
    const visit = (file: string, path: ReadonlyArray<string>): void => {
      if (path.includes(file)) return void circles.push([...path.slice(path.indexOf(file)), file].join(" → "))
      if (done.has(file)) return
      for (const imported of byFile.get(file)?.imports ?? []) {
        if (imported.file !== undefined) visit(imported.file, [...path, file])
      }
      done.add(file)
    }
    for (const { file } of sources) visit(file, [])
    none(circles)
  })

  it("imports only files that exist, with their extension", () => {
    const files = new Set(sources.map(({ file }) => file))
    none(forbidden((_, { file }) => file === undefined || files.has(file) ? undefined : "there is no such file"))
  })

  it("takes modules of Effect one by one, never the barrel", () => {
    none(forbidden((_, { specifier }) => specifier === "effect" ? "name the module" : undefined))
  })
})

describe("pure files", () => {
  it("import nothing of Effect that runs, reads a clock, or logs; types are welcome", () => {
    none(
      forbidden((source, { specifier, typeOnly }) =>
        isPure(source) && !typeOnly && /^(@?effect)(\/|$)/.test(specifier) && !plainModules.includes(specifier)
          ? "it is marked as pure"
          : undefined
      )
    )
  })

  it("import only pure files of ours", () => {
    none(forbidden((source, { file, typeOnly }) => {
      if (!isPure(source) || typeOnly || file === undefined) return undefined
      const imported = sources.find((other) => other.file === file)
      return imported !== undefined && isPure(imported) ? undefined : "it is not pure"
    }))
  })

  it("take time and randomness as arguments", () => {
    const impure =
      /\bDate\.now\b|\bnew Date\(\)|\bMath\.random\b|\brandomUUID\b|\bhrtime\b|\bperformance\.now\b|\bsetTimeout\b/
    none(
      sources.filter((source) => isPure(source) && impure.test(withoutComments(source.text))).map(({ file }) => file)
    )
  })
})

/** What is done on Kafka, whichever client carries it. */
const sharedRoom = "kafka"
const overKafka = ["kafkajs", "platformatic"]

describe("Layers", () => {
  it("import contracts, internal/wire and their own room, and nothing else of ours", () => {
    none(forbidden((source, { file }) => {
      if (!isLayer(source.file) || file === undefined) return undefined
      const [from, to] = [roomOfLayer(source.file), isLayer(file) ? roomOfLayer(file) : undefined]
      return from === to || (to === sharedRoom && overKafka.includes(from)) ||
          /^(Broker|MessageStore)\.ts$/.test(file) || file.startsWith("internal/wire/")
        ? undefined
        : "a Layer knows contracts, the wire, its own room, and those over Kafka what they share"
    }))
  })

  it("are imported by nobody but their own room", () => {
    none(
      forbidden((source, { file }) =>
        file !== undefined && isLayer(file) && !isLayer(source.file) ? "the library knows no Layer" : undefined
      )
    )
  })

  it("each name their room", () => {
    const rooms = new Set(
      sources.filter(({ file }) => file.startsWith("Layers/internal/")).map(({ file }) => roomOfLayer(file))
    )
    const fronts = sources.filter(({ file }) => /^Layers\/[^/]+\.ts$/.test(file)).map(({ file }) => roomOfLayer(file))
    assert.sameMembers(Array.from(rooms), [sharedRoom, ...new Set(fronts)])
  })

  it("keep their clients to themselves: nothing else imports a broker or database client", () => {
    const client = /^(kafkajs|pg|@effect\/sql-|@platformatic|ioredis|redis|mysql2)/
    none(
      forbidden((source, { specifier }) =>
        client.test(specifier) && (!isLayer(source.file) || roomOfLayer(source.file) === sharedRoom)
          ? "clients stay behind a Layer"
          : undefined
      )
    )
  })
})

describe("files", () => {
  /** Fronts and contracts are half documentation: there only code counts. */
  const length = ({ file, text }: Source): number =>
    (file.includes("/") ? text.trimEnd() : withoutComments(text).replaceAll(/^\s*\n/gm, "").trimEnd()).split("\n")
      .length

  it(`of the core can be read in one sitting: ${maxCoreLines} lines at most`, () => {
    none(
      sources.filter((source) => isPure(source) && length(source) > maxCoreLines)
        .map((source) => `${source.file}: ${length(source)} lines`)
    )
  })

  it(`have ${maxLines} lines at most`, () => {
    none(
      sources.filter((source) => length(source) > maxLines).map((source) => `${source.file}: ${length(source)} lines`)
    )
  })

  it("say in a header what they own", () => {
    none(sources.filter(({ header }) => header.length < 40).map(({ file }) => file))
  })

  it("marked as internal are those below internal/, and no others", () => {
    none(
      sources.filter(({ file, header }) => file.startsWith("internal/") !== /@internal/.test(header))
        .filter(({ file }) => !isLayer(file))
        .map(({ file }) => file)
    )
  })
})
