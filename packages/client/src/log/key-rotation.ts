/**
 * Renews the content key when it is time (protocol.md §2, rotation); when that is, says `rotation.ts`. Leader only.
 *
 * Bound: looked at once an hour and at each new entry; an epoch that does not open here is replaced at most once an hour,
 * counted from the server's answer: an attempt that never reached it does not use the hour up.
 */
import { type Crypto, SealpostError } from '@sealpost/protocol'
import type { AccountLog } from './account-log.ts'
import { toUnit } from '../connection/backoff.ts'
import type { LogAppender } from './log-append.ts'
import type { Clock, DeviceStore } from '../ports.ts'
import { ROTATION_SPREAD_MS, rotationDue } from './rotation.ts'
import type { ServerClock } from '../connection/server-clock.ts'

const LOOK_EVERY_MS = 3_600_000
const UNREADABLE_WAIT_MS = 3_000
const EPOCH_NOTE = 'epoch_began'
const FORCED_NOTE = 'rotation_forced'

export type KeyRotationPorts = {
  crypto: Crypto
  store: DeviceStore
  clock: Clock
  time: ServerClock
  account: AccountLog
  appender: LogAppender
  /** A session stands, and the log is as new as it said. */
  online(): boolean
  /** Number of the next event of this device. */
  nextSeq(): number
  /** The current key opens after all. */
  readable(): void
  /** It does not open, and was asked to be renewed within the hour. */
  unreadable(): void
  failed(error: unknown): void
}

export type KeyRotation = {
  /** A session began or the log grew: looks now, and once an hour from here. */
  schedule(): void
  /** Sealing needs it: the current epoch does not open, or is too old to be sealed under. */
  want(why: 'unreadable' | 'old'): void
  end(): void
}

export function createKeyRotation(ports: KeyRotationPorts): KeyRotation {
  const { crypto, store, clock, time, account } = ports
  let cancelLook: (() => void) | null = null
  let cancelKeyWait: (() => void) | null = null
  let ended = false

  function schedule(): void {
    lookIn(LOOK_EVERY_MS)
    void lookNow().catch(ports.failed)
  }

  function lookIn(ms: number): void {
    cancelLook?.()
    cancelLook = ended ? null : clock.setTimer(ms, schedule, true)
  }

  async function lookNow(): Promise<void> {
    const due = await readDue()
    if (due === null || !ports.online() || ended) return
    if (due === 'now') return (await account.sealingKey()) === null ? waitForKey() : rotate(false)
    cancelLook?.()
    cancelLook = clock.setTimer(ROTATION_SPREAD_MS * toUnit(crypto.random(6)), () => void rotate(false).catch(ports.failed), true)
  }

  async function readDue(): Promise<'now' | 'soon' | null> {
    const { log_seq } = account.log
    const key = await account.sealingKey()
    const began = toRecord(await store.readNote(EPOCH_NOTE))
    const next = ports.nextSeq()
    if (began['epoch'] !== log_seq) await store.writeNote(EPOCH_NOTE, { epoch: log_seq, device_seq: next })
    const from = began['epoch'] === log_seq && typeof began['device_seq'] === 'number' ? began['device_seq'] : next
    const forced = await store.readNote(FORCED_NOTE)
    return rotationDue(
      {
        first_seen: account.rows[log_seq]?.first_seen ?? time.now(),
        own_events: next - from,
        readable: key !== null,
        last_forced: typeof forced === 'number' ? forced : null,
      },
      time.now(),
    )
  }

  /** Whoever brings back entries to a restored server rotates right behind, and hands the older keys on: a rotation from here would not. */
  function waitForKey(): void {
    cancelKeyWait ??= clock.setTimer(UNREADABLE_WAIT_MS, () => {
      cancelKeyWait = null
      if (!ports.online() || ended) return
      account
        .sealingKey()
        .then((key) => (key === null ? rotate(true) : ports.readable()))
        .catch(ports.failed)
    })
  }

  async function rotate(unreadable: boolean): Promise<void> {
    try {
      if ((await readDue()) === null) {
        if (unreadable) ports.unreadable()
        return
      }
      const forced = (await account.sealingKey()) === null
      const epoch = account.log.log_seq
      try {
        // another device may have been faster: then there is nothing left to renew
        await ports.appender.append((log) => (log.log_seq === epoch ? { type: 'rotate_keys' } : null))
      } catch (error) {
        if (forced && isAnswer(error)) await store.writeNote(FORCED_NOTE, time.now())
        throw error
      }
      if (forced) await store.writeNote(FORCED_NOTE, time.now())
    } finally {
      lookIn(LOOK_EVERY_MS)
    }
  }

  return {
    schedule,
    want(why) {
      if (why === 'unreadable') waitForKey()
      else void rotate(false).catch(ports.failed)
    },
    end() {
      ended = true
      cancelLook?.()
      cancelKeyWait?.()
      cancelLook = null
      cancelKeyWait = null
    },
  }
}

/** The server has seen it: a lost connection says nothing. */
function isAnswer(error: unknown): boolean {
  return error instanceof SealpostError && error.code !== 'unreachable' && error.code !== 'timeout' && error.code !== 'aborted'
}

function toRecord(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
