/** Imports modules: `node --expose-gc importing.js MODULE...` says how long that took, and how large the heap is. */
import { writeSync } from "node:fs"

const begin = performance.now()
for (const name of process.argv.slice(2)) await import(name)
const millis = performance.now() - begin
const cpu = process.cpuUsage()
globalThis.gc()
writeSync(3, JSON.stringify({ millis, cpu, heapBytes: process.memoryUsage().heapUsed }))
