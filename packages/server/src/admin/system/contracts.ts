/** Contracts of the relay itself: figures, settings, jobs, invites. */
import { z } from 'zod'
import type { Contract } from '../../http/contract.ts'
import { TIME_MS } from '../../http/examples.ts'
import { count, uuid } from '../../http/fields.ts'
import { DOCS_CONTRACTS } from '../../http/docs/contracts.ts'
import { STATUS_CONTRACTS } from '../../http/status/contracts.ts'
import { RATES } from '../../limits/rules.ts'
import { LOG_LEVELS, SIGNUP } from '../../config/variables.ts'
import { encodePlace } from '../cursor.ts'
import { done, nextCursor, note, nothing, page, timeMs, timeMsOrNull } from '../fields.ts'

const INVITE_ID = '4c1b0a9e-8f70-4d6c-b5a4-93827160514f'
const rule = z.enum(Object.keys(RATES) as [string, ...string[]]).describe('A rate of `list_limits`.')
const job = z
  .string()
  .regex(/^[a-z_]{1,64}$/)
  .describe('A job of `list_jobs`.')
const by = z.enum(['configuration', 'operator']).describe('By what it is ruled now.')

const invite = z.strictObject({
  invite_id: uuid,
  created_at: timeMs,
  expires_at: timeMs,
  revoked_at: timeMsOrNull,
  uses_max: count,
  uses: count,
  note: z.string().nullable(),
})
const INVITE = {
  invite_id: INVITE_ID,
  created_at: TIME_MS,
  expires_at: TIME_MS + 604_800_000,
  revoked_at: null,
  uses_max: 1,
  uses: 0,
  note: 'for the new colleague',
}

const pool = z.strictObject({ total: count, idle: count, waiting: count, max: count })
const POOL = { total: 8, idle: 7, waiting: 0, max: 8 }

const json = <S extends z.ZodType>(schema: S, example: z.input<S>) => ({ status: 200, media: 'application/json', schema, example }) as const

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
  ...STATUS_CONTRACTS,
  // always served here
  read_openapi: { ...DOCS_CONTRACTS.read_openapi, problems: [] },
  read_docs: { ...DOCS_CONTRACTS.read_docs, problems: [] },
  read_docs_file: DOCS_CONTRACTS.read_docs_file,
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
  read_signup: { answer: json(z.strictObject({ signup: z.enum(SIGNUP), by }), { signup: 'invite', by: 'operator' }), problems: [] },
  set_signup: {
    body: z.strictObject({ signup: z.enum(SIGNUP).nullable() }),
    answer: done,
    problems: [],
    example: { body: { signup: 'invite' } },
  },
  list_invites: {
    query: z.strictObject(page),
    answer: json(z.strictObject({ invites: z.array(invite), next_cursor: nextCursor }), { invites: [INVITE], next_cursor: null }),
    problems: [],
    example: { query: { limit: 100, cursor: encodePlace({ at: TIME_MS, id: INVITE_ID }) } },
  },
  create_invite: {
    body: z.strictObject({
      uses: count.min(1).max(100_000),
      expires_in_s: count.min(60).max(31_622_400),
      note: note.nullable(),
    }),
    answer: json(z.strictObject({ invite, code: z.string().describe('Shown this once; whoever has it may create an account.') }), {
      invite: INVITE,
      code: 'Zr8l0bVq3m1x7s5k9d2fwA',
    }),
    problems: [],
    example: { body: { uses: 1, expires_in_s: 604_800, note: 'for the new colleague' } },
  },
  revoke_invite: {
    params: z.strictObject({ invite_id: uuid.describe('An invite of `list_invites`.') }),
    answer: done,
    problems: ['not_found'],
    example: { params: { invite_id: INVITE_ID } },
  },
  list_limits: {
    answer: json(
      z.strictObject({
        limits: z.array(
          z.strictObject({
            rule,
            per: z.string(),
            seconds: count,
            points: count.describe('In force.'),
            by,
            says: z.string(),
          }),
        ),
      }),
      { limits: [{ rule: 'genesis', per: 'address', seconds: 3_600, points: 10, by: 'configuration', says: 'new accounts' }] },
    ),
    problems: [],
  },
  set_limit: {
    params: z.strictObject({ rule }),
    body: z.strictObject({ points: count.min(1).max(1_000_000_000).nullable() }),
    answer: done,
    problems: [],
    example: { params: { rule: 'genesis' }, body: { points: 100 } },
  },
  list_jobs: {
    answer: json(
      z.strictObject({
        jobs: z.array(
          z.strictObject({
            job,
            every_ms: count,
            last_run: z
              .strictObject({ began_at: timeMs, ms: count, rows: count, bytes: count, ended: z.enum(['done', 'taken', 'held', 'failed']) })
              .nullable(),
          }),
        ),
      }),
      {
        jobs: [{ job: 'expired_events', every_ms: 60_000, last_run: { began_at: TIME_MS, ms: 12, rows: 3, bytes: 4_096, ended: 'done' } }],
      },
    ),
    problems: [],
  },
  run_job: {
    params: z.strictObject({ job }),
    body: nothing,
    answer: done,
    problems: ['not_found'],
    example: { params: { job: 'expired_events' }, body: {} },
  },
  read_log_level: {
    answer: json(z.strictObject({ log_level: z.enum(LOG_LEVELS), by }), { log_level: 'info', by: 'configuration' }),
    problems: [],
  },
  set_log_level: {
    body: z.strictObject({ log_level: z.enum(LOG_LEVELS).nullable() }),
    answer: done,
    problems: [],
    example: { body: { log_level: 'debug' } },
  },
} as const satisfies Record<string, Contract>
