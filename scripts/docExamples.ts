/**
 * Compiles every example of the documentation: the TypeScript blocks of the
 * Markdown files and of the docstrings in src. An example that no longer
 * compiles is a lie.
 */
import { spawnSync } from "node:child_process"
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"

const folder = "node_modules/.cache/doc-examples"
const fence = /^```ts\n([\s\S]*?)^```$/gm

/** The text of the doc comments of a source file, without their stars. */
const comments = (source: string): string =>
  Array.from(source.matchAll(/\/\*\*[\s\S]*?\*\//g), ([comment]) => comment.replace(/^\s*\* ?/gm, "")).join("\n")

const examplesOf = (file: string): Array<string> => {
  const text = readFileSync(file, "utf8")
  return Array.from((file.endsWith(".ts") ? comments(text) : text).matchAll(fence), ([, code]) => code!)
}

rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
const files = [...globSync("*.md"), ...globSync("src/*.ts"), ...globSync("src/Layers/*.ts")].sort()
let count = 0
for (const file of files) {
  examplesOf(file).forEach((code, i) => {
    count++
    writeFileSync(`${folder}/${file.replaceAll(/[/.]/g, "_")}_${i + 1}.ts`, `${code}\nexport {}\n`)
  })
}
writeFileSync(
  `${folder}/tsconfig.json`,
  JSON.stringify({
    extends: resolve("tsconfig.base.json"),
    // The package under its own name, from its sources; unused names are fine in an example.
    compilerOptions: {
      noEmit: true,
      noUnusedLocals: false,
      paths: { "effect-events": [resolve("src/index.ts")], "effect-events/*": [resolve("src/*.ts")] }
    },
    include: ["*.ts"]
  })
)
const { status } = spawnSync("tsc", ["-p", folder], { stdio: "inherit" })
if (status === 0) console.log(`${count} examples compile`)
process.exit(status ?? 1)
