/**
 * Lines of the log that come again and again, as when the database is away: the first of a kind is written whole, the next are
 * counted. The count is told at most once in `TOLD_MS` while it lasts, and once at the end.
 *
 * Bound: `KINDS_MAX` kinds are counted; of what is beyond them each line is written, as it would be without this.
 */

/** One line. `key`: lines with the same one are of one kind. `fields`: what a count of it carries. */
export type Occurrence = {
  key: string
  /** Of the failure; null when it has none. */
  code: string | null
  fields: object
  sentence: string
  write(fields: object, sentence: string): void
}

export type Repeats = {
  /** True: it is new, and is to be written whole. */
  take(line: Occurrence): boolean
  /** What failed with this code has ended. Writes the line, with what it ended. */
  end(line: Occurrence): void
  /** Tells what was counted. */
  close(): void
}

type Kind = {
  line: Occurrence
  began: number
  last: number
  /** When a line of it was written last. */
  told: number
  /** Since then. */
  count: number
  /** Since it began. */
  unlogged: number
  over: boolean
}

const TOLD_MS = 60_000
/** Above twice the longest pause between two attempts of anything. */
const QUIET_MS = 150_000
const LOOK_MS = 5_000
const KINDS_MAX = 512

export function createRepeats(): Repeats {
  const kinds = new Map<string, Kind>()
  let timer: NodeJS.Timeout | undefined

  function add(line: Occurrence, now: number): void {
    if (kinds.size >= KINDS_MAX && !kinds.has(line.key)) return
    kinds.set(line.key, { line, began: now, last: now, told: now, count: 0, unlogged: 0, over: false })
    timer ??= setInterval(look, LOOK_MS).unref()
  }

  function take(line: Occurrence): boolean {
    const now = performance.now()
    const kind = kinds.get(line.key)
    if (kind === undefined || (kind.over && now - kind.told >= TOLD_MS)) {
      add(line, now)
      return true
    }
    // it began again, too soon to be told
    if (kind.over) Object.assign(kind, { began: now, over: false })
    kind.last = now
    kind.count++
    kind.unlogged++
    return false
  }

  function end(line: Occurrence): void {
    const now = performance.now()
    const ended = [...kinds.values()].filter((kind) => !kind.over && kind.line.code === line.code && kind.line.key !== line.key)
    const unlogged = ended.reduce((sum, kind) => sum + kind.unlogged, 0)
    const for_s = secondsBetween(Math.min(now, ...ended.map(({ began }) => began)), now)
    for (const kind of ended) Object.assign(kind, { count: 0, unlogged: 0, over: true })
    // what comes and goes is told no more often than the rest
    if (!take(line)) return
    const rest = unlogged === 0 ? '' : `; ${unlogged} failures were not logged one by one`
    line.write({ for_s, unlogged }, `${line.sentence} after ${for_s} s${rest}`)
  }

  function look(): void {
    const now = performance.now()
    for (const [key, kind] of kinds) {
      if (now - kind.last >= QUIET_MS) {
        kinds.delete(key)
        if (kind.unlogged > 0) tell(kind, now, 'no more of it since')
      } else if (kind.count > 0 && now - kind.told >= TOLD_MS) tell(kind, now, 'it goes on')
    }
    if (kinds.size > 0) return
    clearInterval(timer)
    timer = undefined
  }

  function tell(kind: Kind, now: number, how: string): void {
    const { line, began, last, unlogged } = kind
    Object.assign(kind, { told: now, count: 0 })
    line.write({ ...line.fields, unlogged, for_s: secondsBetween(began, last) }, `${line.sentence} (${unlogged} more times; ${how})`)
  }

  return {
    take,
    end,
    close() {
      for (const kind of kinds.values()) if (kind.count > 0) tell(kind, performance.now(), 'the log ends')
      kinds.clear()
      clearInterval(timer)
      timer = undefined
    },
  }
}

function secondsBetween(from: number, to: number): number {
  return Math.round((to - from) / 100) / 10
}
