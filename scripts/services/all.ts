import { kafka } from "./kafka/service.ts"
import { mariadb } from "./mariadb/service.ts"
import { mysql } from "./mysql/service.ts"
import { postgres } from "./postgres/service.ts"
import { redis } from "./redis/service.ts"
import type { Service } from "./service.ts"

export const services: ReadonlyArray<Service> = [kafka, postgres, mariadb, mysql, redis]
