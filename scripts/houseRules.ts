/**
 * Rules of this repository that no linter at hand can express. They look at
 * the text line by line; comments are exempt. A line that must break one says
 * why, on itself or on the line above: `// house-rule-allow: <reason>`.
 */
import { globSync, readFileSync } from "node:fs"

interface Rule {
  readonly pattern: RegExp
  readonly message: string
}

const inSources: ReadonlyArray<Rule> = [
  { pattern: /(?<!\.)\basync\b[\s(]|(?<!\.)\bawait\s/, message: "Effects instead of async and await" },
  { pattern: /\bDate\.now\b|\bnew Date\(\)/, message: "time comes from Clock" },
  { pattern: /\bMath\.random\b/, message: "randomness comes from Random" }
]

const inTests: ReadonlyArray<Rule> = [
  { pattern: /\bit\.scoped(Live)?\(/, message: "runs no test under vitest 5; it.effect has a Scope already" }
]

const everywhere: ReadonlyArray<Rule> = [
  { pattern: /\b(TODO|FIXME)\b/, message: "finish it, or leave it out" }
]

const isComment = (line: string): boolean => /^\s*(\/\/|\/?\*)/.test(line)
const isAllowed = (line: string | undefined): boolean => line !== undefined && /\/\/ house-rule-allow: \S/.test(line)

const check = (file: string, code: ReadonlyArray<Rule>): Array<string> => {
  const lines = readFileSync(file, "utf8").split("\n")
  return lines.flatMap((line, index) =>
    isAllowed(line) || isAllowed(lines[index - 1])
      ? []
      : [...everywhere, ...isComment(line) ? [] : code]
        .filter(({ pattern }) => pattern.test(line))
        .map(({ message }) => `${file}:${index + 1}  ${message}: ${line.trim()}`)
  )
}

const self = "scripts/houseRules.ts"
const files = (pattern: string): Array<string> => globSync(pattern).filter((file) => file !== self).sort()

const broken = [
  ...files("src/**/*.ts").flatMap((file) => check(file, inSources)),
  ...files("test/**/*.ts").flatMap((file) => check(file, inTests)),
  ...files("{typetest,examples,bench,scripts}/**/*.ts").flatMap((file) => check(file, []))
]
for (const line of broken) {
  console.error(line)
}
process.exit(broken.length === 0 ? 0 : 1)
