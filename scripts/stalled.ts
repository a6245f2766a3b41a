/**
 * A reporter for vitest that ends a run in which nothing moves any more.
 *
 * Vitest bounds each test, but a worker whose thread never comes back to its
 * event loop hears of no bound, and the run waits for it for ever. So when no
 * test has ended for a while, this says which ones run and ends them all,
 * which counts as a failure.
 */
import { readFileSync } from "node:fs"
import type { Reporter, TestCase, TestModule } from "vitest/node"

/** Longer than any one test may take. */
const patienceMinutes = Number(process.env.STALLED_AFTER_MINUTES ?? 15)

const children = (): Array<number> => {
  try {
    return readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").split(" ").filter(Boolean).map(Number)
  } catch {
    return []
  }
}

export default class Stalled implements Reporter {
  private readonly running = new Set<TestCase | TestModule>()
  private timer: NodeJS.Timeout | undefined

  private moved(): void {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.end(), patienceMinutes * 60_000).unref()
  }

  private end(): void {
    const names = Array.from(this.running, (one) => one.type === "module" ? one.moduleId : one.fullName)
    process.stderr.write(`Nothing has moved for ${patienceMinutes} minutes. These run:\n  ${names.join("\n  ")}\n`)
    for (const pid of [...children(), process.pid]) process.kill(pid, "SIGKILL")
  }

  onTestModuleStart(module: TestModule): void {
    this.running.add(module)
    this.moved()
  }
  onTestCaseReady(test: TestCase): void {
    this.running.add(test)
  }
  onTestCaseResult(test: TestCase): void {
    this.running.delete(test)
    this.moved()
  }
  onTestModuleEnd(module: TestModule): void {
    this.running.delete(module)
    this.moved()
  }
  onTestRunEnd(): void {
    clearTimeout(this.timer)
  }
}
