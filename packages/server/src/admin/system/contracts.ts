/** Contracts of the relay itself: figures, nodes, versions, its configuration and its database. */
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { TIME_MS } from '../../http/examples.ts'
import { count } from '../../http/fields.ts'
import { json, timeMs } from '../fields.ts'

const pool = z.strictObject({ total: count, idle: count, waiting: count, max: count })
const POOL = { total: 8, idle: 7, waiting: 0, max: 8 }

/** Of one process; `subscriptions`: users with a session there. */
const nodeFigures = z.strictObject({
  version: z.string(),
  host: z.string(),
  pid: count,
  started_at: timeMs,
  sessions: count,
  subscriptions: count,
  reach: z.enum(['alone', 'up', 'down']).describe('Whether hints of other nodes arrive there.'),
  inbox_bytes: count,
  outbound_bytes: count,
  events_stored: count.describe('Since its start.'),
  rss_bytes: count,
  loop_delay_ms: z.number().min(0),
  shedding: z.boolean(),
  draining: z.boolean(),
})

const NODE = {
  version: '0.1.0',
  host: 'relay-1',
  pid: 4_211,
  started_at: TIME_MS,
  sessions: 212,
  subscriptions: 97,
  reach: 'up' as const,
  inbox_bytes: 0,
  outbound_bytes: 4_096,
  events_stored: 88_123,
  rss_bytes: 131_072_000,
  loop_delay_ms: 1.2,
  shedding: false,
  draining: false,
}

export const SYSTEM_CONTRACTS = {
  read_figures: {
    answer: json(
      z.strictObject({
        accounts: count.describe('An estimate of the database.'),
        suspended: count,
        devices: count.describe('An estimate of the database, revoked ones too.'),
        events: count.describe('An estimate of the database.'),
        database_bytes: count,
        node: nodeFigures,
      }),
      {
        accounts: 120,
        suspended: 1,
        devices: 310,
        events: 1_200_000,
        database_bytes: 904_000_000,
        node: NODE,
      },
    ),
    problems: [],
  },
  list_nodes: {
    answer: json(
      z.strictObject({
        nodes: z.array(
          z.strictObject({
            node_no: count,
            live: z.boolean().describe('Its lease runs.'),
            figures: nodeFigures.describe('At its last beat.'),
          }),
        ),
      }),
      { nodes: [{ node_no: 1, live: true, figures: NODE }] },
    ),
    problems: [],
  },
  read_version: {
    answer: json(z.strictObject({ sealpost: z.string(), protocol: z.literal(1), node: z.string(), database: z.string(), schema: count }), {
      sealpost: '0.1.0',
      protocol: 1,
      node: '24.0.0',
      database: '18.4',
      schema: 7,
    }),
    problems: [],
  },
  read_config: {
    answer: json(
      z.strictObject({
        variables: z.array(
          z.strictObject({
            name: z.string(),
            value: z.string().nullable().describe('As text; null when there is none, and of a secret always.'),
            is_set: z.boolean(),
            secret: z.boolean(),
            says: z.string(),
          }),
        ),
      }),
      { variables: [{ name: 'SEALPOST_PORT', value: '8787', is_set: false, secret: false, says: 'Port to listen on; 0 = any free one.' }] },
    ),
    problems: [],
  },
  read_database: {
    answer: json(
      z.strictObject({
        version: z.string(),
        bytes: count,
        fsync: z.string(),
        synchronous_commit: z.string(),
        full_page_writes: z.string(),
        connections: count,
        connections_max: count,
        schema_version: count,
        pools: z.strictObject({ main: pool, ingest: pool }),
      }),
      {
        version: '18.4',
        bytes: 904_000_000,
        fsync: 'on',
        synchronous_commit: 'on',
        full_page_writes: 'on',
        connections: 13,
        connections_max: 100,
        schema_version: 7,
        pools: { main: POOL, ingest: { ...POOL, total: 2, idle: 2, max: 4 } },
      },
    ),
    problems: [],
  },
} as const satisfies Record<string, Contract>
