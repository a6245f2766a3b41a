import { spawn } from "node:child_process"

/** One thing to check: a command that is right when it exits with 0. */
export interface Step {
  readonly name: string
  readonly command: string
  readonly args: ReadonlyArray<string>
}

export interface StepResult {
  readonly step: Step
  readonly passed: boolean
  readonly output: string
}

/** Runs one step and reports it in one line, with its output only when it fails. */
export const runStep = async (step: Step): Promise<StepResult> => {
  const begin = performance.now()
  const { code, output } = await capture(step)
  const passed = code === 0
  const seconds = ((performance.now() - begin) / 1000).toFixed(1)
  console.log(`${passed ? "pass" : "FAIL"}  ${step.name} (${seconds} s)${passed ? "" : `\n${output}`}`)
  return { step, passed, output }
}

/** Two at a time: some of the tools use all cores themselves. */
export const runSteps = async (steps: ReadonlyArray<Step>): Promise<Array<StepResult>> => {
  const waiting = steps.values()
  const results: Array<StepResult> = []
  const worker = async () => {
    for (const step of waiting) {
      results.push(await runStep(step))
    }
  }
  await Promise.all([worker(), worker()])
  return results
}

const capture = ({ args, command }: Step): Promise<{ readonly code: number; readonly output: string }> =>
  new Promise((resolve) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    const add = (chunk: Buffer) => {
      output += chunk.toString("utf8")
    }
    child.stdout.on("data", add)
    child.stderr.on("data", add)
    child.once("error", (error) => resolve({ code: 1, output: error.message }))
    child.once("close", (code) => resolve({ code: code ?? 1, output }))
  })
