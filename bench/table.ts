/** Results and aims side by side, as a Markdown table that can also be read in a terminal. */
import type { Row } from "./harness.ts"

const head = ["benchmark", "ours", "twin", "unit", "ratio", "spread", "aim", "µs of CPU, ours", "twin"]

const verdict = ({ aim, ratio }: Row): string => aim === undefined ? "" : `${aim}${ratio < aim ? ", missed" : ""}`

const cellsOf = (row: Row): Array<string> => [
  `\`${row.name}\``,
  String(row.ours),
  String(row.twin),
  row.unit,
  row.ratio.toFixed(2),
  row.spread.map((ratio) => ratio.toFixed(2)).join(" … "),
  verdict(row),
  String(row.cpu.ours),
  String(row.cpu.twin)
]

export const tableOf = (rows: ReadonlyArray<Row>): string => {
  const cells = [head, ...rows.map(cellsOf)]
  const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]!.length)))
  const lineOf = (row: ReadonlyArray<string>) => `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`
  return [lineOf(head), lineOf(widths.map((width) => "-".repeat(width))), ...cells.slice(1).map(lineOf)].join("\n")
}
