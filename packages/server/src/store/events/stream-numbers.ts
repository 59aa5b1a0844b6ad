/**
 * Stream names to numbers. A number is given once, under the account's row lock, in a short transaction before the batch
 * that needs it, to a session that holds and to no other; from then on it never changes, so that it may be remembered, but not beyond a restart of the database,
 * which may have been a restore. Bounds: 10,000 streams per user, and
 * `CACHE_MAX` remembered names, the least recently used leave first.
 */
import type { ClientBase } from 'pg'
import type { Run } from '../../ports/store.ts'
import { int4Array, int8Array, uuidArray } from '../postgres/binary-array.ts'
import { commitSoFar } from '../postgres/pool.ts'

/** `busy`: the account is locked by another writer. `not_active`: no active account or device. `full`: the limit is reached. */
export type StreamNumber = number | 'busy' | 'not_active' | 'full' | 'fenced'

/** The number of a stream of a run that was given. */
export type StreamNumbers = (run: Run, stream_id: string) => StreamNumber

export type StreamDirectory = {
  /** The numbers of all streams of `runs`, made where missing; good for a batch on this connection. */
  numberStreams(client: ClientBase, runs: readonly Run[], patient: boolean): Promise<StreamNumbers>
}

const CACHE_MAX = 200_000

const NUMBER = {
  name: 'number_streams',
  text: 'select s.stream_no, s.outcome from number_streams($1::int8[], $2::int4[], $3::uuid[], $4::text[], $5::int4, $6::bool) s',
}

/** By the outcome of the call; 0 = the number itself. */
const OUTCOMES = [null, 'busy', 'not_active', 'full', 'fenced'] as const

export function createStreamDirectory(
  incarnationOf: (client: ClientBase) => string,
  streams_max: number,
  cache_max = CACHE_MAX,
): StreamDirectory {
  let incarnation = ''
  // a Map keeps the order of insertion; what is used is put back at the end
  const known = new Map<string, number>()

  const recall = (key: string): number | undefined => {
    const number = known.get(key)
    if (number === undefined) return undefined
    known.delete(key)
    known.set(key, number)
    return number
  }

  const remember = (key: string, number: number): void => {
    known.set(key, number)
    const oldest = known.size > cache_max ? known.keys().next().value : undefined
    if (oldest !== undefined) known.delete(oldest)
  }

  return {
    async numberStreams(client, runs, patient) {
      if (incarnation !== incarnationOf(client)) {
        incarnation = incarnationOf(client)
        known.clear()
      }
      const found = new Map<string, number>()
      const missing: { run: Run; stream_id: string }[] = []
      const asked = new Set<string>()
      for (const run of runs) {
        let last: string | undefined
        for (const { stream_id } of run.events) {
          if (stream_id === last) continue
          last = stream_id
          const key = keyOf(run, stream_id)
          if (found.has(key) || asked.has(askOf(run, stream_id))) continue
          const number = recall(key)
          if (number !== undefined) {
            found.set(key, number)
            continue
          }
          asked.add(askOf(run, stream_id))
          missing.push({ run, stream_id })
        }
      }
      const refused = new Map<string, StreamNumber>()
      if (missing.length > 0) {
        const values = [
          int8Array(missing.map(({ run }) => run.user_no)),
          int4Array(missing.map(({ run }) => run.device_no)),
          uuidArray(missing.map(({ run }) => run.session_id)),
          missing.map(({ stream_id }) => stream_id),
          streams_max,
          patient,
        ]
        const { rows } = await client.query<{ stream_no: number; outcome: number }>({ ...NUMBER, values })
        // nothing is remembered that may be rolled back, and the batch locks its accounts anew, in its own order
        await commitSoFar(client)
        for (const [i, { run, stream_id }] of missing.entries()) {
          const { stream_no, outcome } = rows[i] ?? { stream_no: 0, outcome: 1 }
          const refusal = OUTCOMES[outcome] ?? null
          if (refusal !== null) refused.set(askOf(run, stream_id), refusal)
          else {
            found.set(keyOf(run, stream_id), stream_no)
            if (incarnation === incarnationOf(client)) remember(keyOf(run, stream_id), stream_no)
          }
        }
      }
      return (run, stream_id) => refused.get(askOf(run, stream_id)) ?? found.get(keyOf(run, stream_id)) ?? 'busy'
    },
  }
}

function keyOf({ user_no }: Run, stream_id: string): string {
  return `${user_no}/${stream_id}`
}

/** A stream may be there for one device of a user and refused to another. */
function askOf({ user_no, device_no }: Run, stream_id: string): string {
  return `${user_no}/${device_no}/${stream_id}`
}
