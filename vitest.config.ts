import { defineConfig } from "vitest/config"

/**
 * Resolves `effect-events/...` to src/*.ts, as tsconfig.base.json does. It is
 * in NODE_OPTIONS too, so that processes that a test spawns see the same.
 */
const sourceCondition = "effect-events-source"

const needsServices = ["test/layers/**/*.test.ts", "test/e2e/**/*.test.ts"]
const inMemory = "test/layers/Memory*.test.ts"
/** What measures how long something takes, and so runs when nothing else does. */
const timed = "test/e2e/crashMatrix.test.ts"
/** What runs over both Kafka clients, and not only over the first. */
const overBothClients = [
  "test/layers/Kafka.{broker,broadcast,postgres}.test.ts",
  "test/layers/kafka/*.test.ts",
  "test/e2e/{brokers,frozen,leaving,rollingDeploy,soak}.test.ts"
]

export default defineConfig({
  resolve: { conditions: [sourceCondition] },
  ssr: { resolve: { conditions: [sourceCondition] } },
  test: {
    env: { NODE_OPTIONS: `--conditions=${sourceCondition}` },
    // Cases of a suite that run side by side: more would let each wait for the others on a slow machine.
    maxConcurrency: 3,
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["test/*.test.ts", "test/internal/**/*.test.ts", inMemory],
          testTimeout: 60_000,
          maxWorkers: 2,
          sequence: { groupOrder: 1 }
        }
      },
      {
        extends: true,
        test: {
          name: "integration",
          include: needsServices,
          exclude: [inMemory, timed],
          globalSetup: "test/support/obtainServices.ts",
          testTimeout: 180_000,
          hookTimeout: 180_000,
          maxWorkers: 2,
          // After the unit tests, which would take the cores that a broker needs to keep its time limits.
          sequence: { groupOrder: 2 }
        }
      },
      {
        extends: true,
        test: {
          name: "platformatic",
          include: overBothClients,
          globalSetup: "test/support/obtainServices.ts",
          // See test/support/kafkaClient.ts.
          env: { NODE_OPTIONS: `--conditions=${sourceCondition}`, KAFKA_CLIENT: "platformatic" },
          testTimeout: 180_000,
          hookTimeout: 180_000,
          maxWorkers: 2,
          sequence: { groupOrder: 3 }
        }
      },
      {
        extends: true,
        test: {
          name: "timed",
          include: [timed],
          globalSetup: "test/support/obtainServices.ts",
          testTimeout: 180_000,
          hookTimeout: 180_000,
          maxWorkers: 1,
          sequence: { groupOrder: 4 }
        }
      }
    ]
  }
})
