/**
 * The server's clock as this process knows it (protocol.md §3, G07). Whatever is stamped, signed with a time, or judged by its time
 * asks here.
 *
 * What a handshake told is *sure* as long as the clock of this device was not changed since: its distance to the monotonic clock
 * shows that (a sleep of the machine looks the same). What an earlier process was told, and the `date` of an answer that nobody
 * signed, are hints: the next handshake corrects them. Bound: one note in the store.
 */
import { SealpostError } from '@sealpost/protocol'
import type { Clock, DeviceStore, Http } from '../ports.ts'

/** Clocks that are kept in step, and an answer that was late, differ by less. */
export const CLOCK_SLACK_MS = 5_000
const NOTE = 'server_clock'
/** A change of less is not written down. */
const NOTED_MS = 1_000

export type ServerClock = {
  /** ms since 1970: the server's time as well as it is known; that of this device where nothing is known. */
  now(): number
  /** ms to add to the clock of this device. */
  readonly offset: number
  /** A handshake told it, and the clock of this device was not changed since. */
  readonly sure: boolean
  /** A handshake told the server's time. */
  hear(server_ms: number): void
  /** The `date` header of an answer: counts while nothing is sure. */
  hearDate(date: string | undefined): void
}

/** `at`: what the clock of this device showed then. */
type Hint = { offset: number; at: number }

export function createServerClock(clock: Clock, stored: Hint | null = null, save: (hint: Hint) => void = () => undefined): ServerClock {
  let heard: { offset: number; drift: number; signed: boolean } | null = null
  let noted = stored

  const drift = (): number => clock.now() - clock.mono()
  const isSure = (): boolean => heard !== null && heard.signed && Math.abs(drift() - heard.drift) <= CLOCK_SLACK_MS

  function offset(): number {
    if (heard !== null) return heard.offset
    if (noted === null) return 0
    const now = clock.now()
    // the clock of this device was set back since: all that is left is that the server's does not go back
    return now >= noted.at ? noted.offset : Math.max(0, noted.at + noted.offset - now)
  }

  return {
    now: () => clock.now() + offset(),
    get offset() {
      return offset()
    },
    get sure() {
      return isSure()
    },
    hear(server_ms) {
      const at = clock.now()
      heard = { offset: server_ms - at, drift: drift(), signed: true }
      if (noted !== null && at >= noted.at && Math.abs(noted.offset - heard.offset) <= NOTED_MS) return
      noted = { offset: heard.offset, at }
      save(noted)
    },
    hearDate(date) {
      const server_ms = Date.parse(date ?? '')
      if (Number.isNaN(server_ms) || isSure()) return
      // whole seconds, cut off
      heard = { offset: server_ms + 500 - clock.now(), drift: drift(), signed: false }
    },
  }
}

/** With what an earlier process of this home was told. */
export async function openServerClock({ clock, store }: { clock: Clock; store: DeviceStore }): Promise<ServerClock> {
  return createServerClock(clock, toHint(await store.readNote(NOTE)), (hint) => {
    // without the note the next process begins without a hint, and that is all
    store.writeNote(NOTE, hint).catch(() => undefined)
  })
}

/** Every answer tells the time. */
export function hearing(http: Http, time: ServerClock): Http {
  return {
    async request(request) {
      const response = await http.request(request)
      time.hearDate(response.headers['date'])
      return response
    },
    async stream(request) {
      const response = await http.stream(request)
      time.hearDate(response.headers['date'])
      return response
    },
  }
}

/** The server refuses the time of what is signed here, also as it told it itself. */
export function clockError(cause: SealpostError, time: ServerClock): SealpostError {
  const ms = Math.abs(time.offset)
  const way = time.offset < 0 ? 'ahead of' : 'behind'
  const says = ms < 60_000 ? cause.message : `the clock of this device is ${spanOf(ms)} ${way} the server's; set it`
  return new SealpostError('clock_skew', says, { cause })
}

function spanOf(ms: number): string {
  const minutes = Math.round(ms / 60_000)
  if (minutes < 120) return `${minutes} minute${minutes === 1 ? '' : 's'}`
  const hours = Math.round(minutes / 60)
  return hours < 48 ? `${hours} hours` : `${Math.round(hours / 24)} days`
}

function toHint(note: unknown): Hint | null {
  if (typeof note !== 'object' || note === null || !('offset' in note) || !('at' in note)) return null
  const { offset, at } = note
  return Number.isSafeInteger(offset) && Number.isSafeInteger(at) ? { offset: offset as number, at: at as number } : null
}
