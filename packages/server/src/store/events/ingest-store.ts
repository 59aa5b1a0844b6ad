/**
 * Stores batches: one call, one transaction, one round trip (protocol.md §6). The promise of the answer: what is `stored`
 * is on disk (synchronous_commit on) and has its final numbers; of a refused run nothing is stored. When the call itself
 * fails, nobody knows: the same runs sent again are stored, or found to be duplicates.
 *
 * Isolation: read committed. Locks: account rows (sorted; skipped when taken, unless `patient`), then device rows, then
 * heads, all for the time of the statement. Duplicates are looked up without a lock: stored rows do not change.
 */
import { CLIENT_HEAD_BYTES_MAX, clientPartIds, equalBytes, FLAG } from '@sealpost/protocol'
import type { ClientBase } from 'pg'
import type { DuplicateVerdict, IngestStore, Run, Verdict } from '../../ports/store.ts'
import { byteaArray, int2Array, int4Array, int8Array, uuidArray } from '../postgres/binary-array.ts'
import { buildBatch, type IngestAnswer, type IngestArrays, readVerdicts } from './ingest-batch.ts'
import { type Pools, withClient } from '../postgres/pool.ts'
import { createStreamDirectory, type StreamNumbers } from './stream-numbers.ts'

export type IngestStoreOptions = {
  pools: Pools
  clock_skew_ms: number
  streams_max: number
  /** Stored bytes of a user from which nothing more is taken, judged before each batch: the overrun is one batch at most. Null = none. */
  quota_bytes: number | null
}

const INGEST = {
  name: 'ingest',
  text: `select i.received_at, i.verdict, i.expected, i.log_seq, i.run_base, i.seg_base
  from ingest($1::int8[], $2::int4[], $3::uuid[], $4::int8[], $5::int4[], $6::int8[], $7::int8[], $8::int8[], $9::int4[], $10::int4[], $11::int4[],
    $12::int4[], $13::int4[], $14::int4[], $15::int4[], $16::int8[], $17::int8[], $18::int4[], $19::int4[], $20::int8[],
    $21::int4[], $22::int4[], $23::int4[], $24::int4[], $25::int8[], $26::int2[], $27::bytea[], $28::int8, $29::int8, $30::bool) i`,
}

const DUPLICATES = {
  name: 'read_duplicates',
  text: `select s.device_seq, d.swept_seq, e.position, e.stream_seq, e.received_at, e.flags, substring(e.record from 1 for ${CLIENT_HEAD_BYTES_MAX}) as head
  from unnest($3::int8[]) with ordinality s (device_seq, i)
  join device d on d.user_no = $1::int8 and d.device_no = $2::int4
  left join event e on e.user_no = d.user_no and e.device_no = d.device_no and e.device_seq = s.device_seq
 order by s.i`,
}

type DuplicateRow = {
  device_seq: number
  swept_seq: number
  position: number | null
  stream_seq: number
  received_at: number
  flags: number
  head: Buffer
}

export function createIngestStore(options: IngestStoreOptions): IngestStore {
  const { pools, clock_skew_ms } = options
  const directory = createStreamDirectory(pools.incarnationOf, options.streams_max)

  async function ingest(runs: readonly Run[], patient: boolean): Promise<Verdict[]> {
    if (runs.length === 0) return []
    return withClient(pools.ingest, async (client) => {
      const streamNumber = await directory.numberStreams(client, runs, patient)
      const verdicts = runs.map((run) => withoutStream(run, streamNumber))
      const places = [...runs.keys()].filter((at) => verdicts[at] === null)
      const given = places.flatMap((at) => runs[at] ?? [])
      const answers = given.length === 0 ? [] : await ingestNumbered(client, given, streamNumber, patient)
      for (const [i, at] of places.entries()) verdicts[at] = answers[i] ?? null
      return verdicts.map((verdict) => verdict ?? { is: 'busy' })
    })
  }

  async function ingestNumbered(
    client: ClientBase,
    runs: readonly Run[],
    streamNumber: StreamNumbers,
    patient: boolean,
  ): Promise<Verdict[]> {
    const batch = buildBatch(runs, (run, stream_id) => {
      const number = streamNumber(run, stream_id)
      return typeof number === 'number' ? number : null
    })
    const values = [...toParameters(batch.arrays), clock_skew_ms, options.quota_bytes, patient]
    const { rows } = await client.query<IngestAnswer>({ ...INGEST, values })
    if (rows[0] === undefined) throw new TypeError('ingest answers one row')
    return readVerdicts(batch, rows[0], clock_skew_ms)
  }

  async function readDuplicates(
    user_no: number,
    device_no: number,
    events: readonly { device_seq: number; flags: number; client: Uint8Array }[],
  ): Promise<DuplicateVerdict[]> {
    if (events.length === 0) return []
    const values = [user_no, device_no, int8Array(events.map((event) => event.device_seq))]
    const { rows } = await withClient(pools.main, (client) => client.query<DuplicateRow>({ ...DUPLICATES, values }))
    return events.map((event, i) => judgeDuplicate(event, rows[i]))
  }

  return { ingest, readDuplicates }
}

/** A stream that has no number ends the run here, but for one above the limit: what stands before that rule is judged by the call. */
function withoutStream(run: Run, streamNumber: StreamNumbers): Verdict | null {
  for (const { stream_id } of run.events) {
    const number = streamNumber(run, stream_id)
    if (number === 'busy' || number === 'not_active' || number === 'fenced') return { is: number }
  }
  return null
}

function judgeDuplicate(event: { device_seq: number; flags: number; client: Uint8Array }, row: DuplicateRow | undefined): DuplicateVerdict {
  const { device_seq } = event
  if (row === undefined) return { is: 'conflict', device_seq }
  if (row.position === null) return { is: device_seq <= row.swept_seq ? 'swept' : 'conflict', device_seq }
  const { sig } = clientPartIds(event.flags, event.client)
  const signed = event.client.subarray(0, sig.byteOffset - event.client.byteOffset + sig.length)
  const same = (row.flags & ~FLAG.tombstone) === (event.flags & ~FLAG.tombstone) && equalBytes(row.head.subarray(0, signed.length), signed)
  if (!same) return { is: 'conflict', device_seq }
  return { is: 'duplicate', device_seq, position: row.position, stream_seq: row.stream_seq, received_at: row.received_at }
}

function toParameters(a: IngestArrays): (Buffer | null)[] {
  return [
    int8Array(a.run_user),
    int4Array(a.run_device),
    uuidArray(a.run_session),
    int8Array(a.run_first),
    int4Array(a.run_n),
    int8Array(a.run_epoch),
    a.run_expires && int8Array(a.run_expires),
    a.run_made && int8Array(a.run_made),
    a.run_barred && int4Array(a.run_barred),
    int4Array(a.run_head),
    int4Array(a.run_off),
    int4Array(a.seg_run),
    int4Array(a.seg_head),
    int4Array(a.seg_n),
    int4Array(a.seg_off),
    int8Array(a.seg_bytes),
    int8Array(a.head_user),
    int4Array(a.head_stream),
    int4Array(a.head_n),
    int8Array(a.head_bytes),
    int4Array(a.ev_run),
    int4Array(a.ev_seg),
    int4Array(a.ev_run_ix),
    int4Array(a.ev_seg_ix),
    int8Array(a.ev_expires),
    int2Array(a.ev_flags),
    byteaArray(a.ev_record),
  ]
}
