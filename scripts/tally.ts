/** Counts of tests, from the reports of vitest and tstyche. */
import { readFileSync } from "node:fs"
import { stripVTControlCharacters } from "node:util"

export interface Tally {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

export const none: Tally = { passed: 0, failed: 0, skipped: 0 }

export const failures = (failed: number): Tally => ({ passed: 0, failed, skipped: 0 })

export const sum = (tallies: ReadonlyArray<Tally>): Tally =>
  tallies.reduce((a, b) => ({
    passed: a.passed + b.passed,
    failed: a.failed + b.failed,
    skipped: a.skipped + b.skipped
  }), none)

interface VitestReport {
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
  readonly testResults: ReadonlyArray<{ readonly status: string; readonly assertionResults: ReadonlyArray<unknown> }>
}

/** A file that does not load, and an error outside any test, count as one failure. */
export const ofVitest = (reportFile: string, exitCode: number): Tally => {
  let report: VitestReport
  try {
    report = JSON.parse(readFileSync(reportFile, "utf8"))
  } catch {
    return failures(1)
  }
  const unloaded = report.testResults.filter(
    ({ assertionResults, status }) => status === "failed" && assertionResults.length === 0
  )
  const failed = report.numFailedTests + unloaded.length
  return {
    passed: report.numPassedTests,
    failed: failed === 0 && exitCode !== 0 ? 1 : failed,
    skipped: report.numPendingTests + report.numTodoTests
  }
}

/** Reads the line `Tests: 1 failed, 2 passed, 1 skipped, 4 total`. */
export const ofTstyche = (output: string): Tally => {
  const line = /^Tests:.*$/m.exec(stripVTControlCharacters(output))?.[0] ?? ""
  const count = (word: string): number => Number(new RegExp(`(\\d+) ${word}`).exec(line)?.[1] ?? 0)
  return { passed: count("passed"), failed: count("failed"), skipped: count("skipped") }
}
