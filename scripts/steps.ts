/** Everything that `npm run check` and `npm test` check without running the library. */
import { existsSync } from "node:fs"
import type { Step } from "./step.ts"

/** TypeScript with Effect's diagnostics (a floating Effect is an error); npm has it for Linux x64. */
const effectTsc = "node_modules/@effect/tsgo-linux-x64/artifacts/typescript/7.0.2/tsc"

export const typeTests: Step = { name: "type tests", command: "tstyche", args: [] }

export const staticSteps: ReadonlyArray<Step> = [
  typeTests,
  existsSync(effectTsc)
    ? { name: "types and Effect diagnostics", command: effectTsc, args: ["-p", "tsconfig.json"] }
    : { name: "types (no Effect diagnostics on this platform)", command: "tsc", args: ["-p", "tsconfig.json"] },
  { name: "examples of the docs", command: "node", args: ["scripts/docExamples.ts"] },
  { name: "lint", command: "oxlint", args: [] },
  { name: "format", command: "dprint", args: ["check"] },
  { name: "house rules", command: "node", args: ["scripts/houseRules.ts"] }
]

export const packageStep: Step = { name: "package", command: "node", args: ["scripts/package.ts"] }
