/**
 * Changes of the device log from this device (protocol.md §2): read up to the server's head, decide, compare-and-swap; a loser reads and
 * decides again. One change at a time. Bound: `TRIES_MAX` rounds.
 *
 * Invariant: `decide` sees the log as the server has it, so that it denies no device that another one added meanwhile.
 */
import { type Crypto, buildEntry, type DeviceLog, EMPTY, equalBytes, type LogChange, SealpostError, toBase64url } from '@sealpost/protocol'
import type { AccountLog } from './account-log.ts'
import { createMutex } from '../mutex.ts'
import type { Identity } from '../ports.ts'
import { refusal, type Requests } from '../connection/requests.ts'
import type { ServerClock } from '../connection/server-clock.ts'
import { orAborted } from '../signal.ts'

const TRIES_MAX = 8

export type Decide = (log: DeviceLog, refusals: { heads_stale: number }) => Promise<LogChange | null> | LogChange | null

type Appended = { log_seq: number; entry_hash: Uint8Array }

export type LogAppender = {
  /**
   * Null: `decide` found nothing left to do. Called again with the same `decide`, it knows its entry that was stored without an answer.
   * Throws `rate_limited`, `name_taken`, `invalid_entry`, `epoch_unreadable`, `log_conflict`, `unreachable`.
   */
  append(decide: Decide, signal?: AbortSignal): Promise<Appended | null>
}

export type LogAppenderPorts = {
  crypto: Crypto
  identity: Identity
  account: AccountLog
  requests: Requests
  time: ServerClock
  /** The log is as new as the server's. */
  readLog(): Promise<void>
  changed(log_seq: number): void
}

export function createLogAppender(ports: LogAppenderPorts): LogAppender {
  const { crypto, identity, account, requests } = ports
  const mutex = createMutex()
  /** By what was decided: the entries that had no answer. */
  const unanswered = new WeakMap<Decide, readonly Appended[]>()

  function findStored(sent: readonly Appended[]): Appended | undefined {
    return sent.find(({ log_seq, entry_hash }) => equalBytes(account.log.epochs[log_seq]?.entry_hash ?? EMPTY, entry_hash))
  }

  async function append(decide: Decide, signal?: AbortSignal): Promise<Appended | null> {
    const refusals = { heads_stale: 0 }
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      await orAborted(ports.readLog(), signal)
      const sent = unanswered.get(decide) ?? []
      const stored = findStored(sent)
      if (stored !== undefined) return stored
      const { log } = account
      const change = await decide(log, refusals)
      if (change === null) return null
      await account.openKeys([log.log_seq])
      const previous = account.epochKey(log.log_seq)
      if (previous === null && change.type !== 'rotate_keys' && change.type !== 'recover')
        throw new SealpostError(
          'epoch_unreadable',
          'the key of the current epoch cannot be opened on this device; try again after it was renewed',
        )
      const signer = { id: identity.device_id, seed: identity.sign_seed }
      const made = await buildEntry(crypto, log, identity.user_id, signer, change, previous, ports.time.now())
      const body = toBase64url(made.entry.body)
      const sig = toBase64url(made.entry.sig)
      const appended = { log_seq: made.log_seq, entry_hash: made.entry_hash }
      unanswered.set(decide, [...sent, appended])
      const { head } = await requests.ask('log_result', (id) => ({ type: 'log_append', id, body, sig, boxes: made.boxes }), { signal })
      unanswered.set(decide, sent)
      if (head.ok) {
        await account.apply([{ body, sig, box: made.boxes[identity.device_id] ?? null }])
        ports.changed(made.log_seq)
        return appended
      }
      if (head.code === 'heads_stale') refusals.heads_stale++
      else if (head.code !== 'log_conflict') throw refusal(head.code ?? 'invalid_entry')
    }
    throw new SealpostError('log_conflict', 'other devices change the device list all the time; try again')
  }

  return { append: (decide, signal) => mutex(() => append(decide, signal)) }
}
