import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { SealpostError } from '@sealpost/protocol'
import { createLog } from './log.ts'

describe('the log', () => {
  it('writes of an error its name, code, message, stack and causes, and nothing else that it carries', () => {
    const lines: string[] = []
    const log = createLog('info', { write: (line) => void lines.push(line) })
    const cause = Object.assign(new Error('refused'), { code: '28P01', client: { password: 'hunter2' } })
    log.error({ err: new TypeError('failed', { cause }) }, 'it failed')
    expect(JSON.parse(lines[0]!)).toMatchObject({
      msg: 'it failed',
      err: { type: 'TypeError', message: 'failed', cause: { type: 'Error', code: '28P01', message: 'refused' } },
    })
    expect(lines[0]).not.toContain('hunter2')
  })

  it('keeps one line per entry whatever the text holds', () => {
    const lines: string[] = []
    createLog('info', { write: (line) => void lines.push(line) }).warn({ name: 'a\r\n{"level":50}' }, 'b\nc')
    expect(
      lines
        .join('')
        .trimEnd()
        .split(/[\r\n]/),
    ).toHaveLength(1)
  })
})

describe('a failure that comes again and again', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  type Line = { msg: string; err?: { stack?: string }; cause?: string; unlogged?: number; for_s?: number }

  function open() {
    const lines: Line[] = []
    const log = createLog('info', { write: (line) => void lines.push(JSON.parse(line)) })
    const fail = (request_id = ''): void => log.warn({ err: away(), request_id }, 'the store failed')
    return { log, lines, fail, taken: () => lines.splice(0) }
  }
  function away(code = 'ECONNREFUSED'): Error {
    return new SealpostError('unavailable', 'the database did not answer', { cause: Object.assign(new Error(`connect ${code}`), { code }) })
  }

  it('is written whole once, and then counted, with its cause, once a minute', () => {
    const { fail, taken } = open()
    for (let i = 0; i < 100; i++) fail(`request ${i}`)
    expect(taken()).toEqual([expect.objectContaining({ msg: 'the store failed', request_id: 'request 0', err: expect.anything() })])
    for (let s = 0; s < 180; s++) {
      vi.advanceTimersByTime(1_000)
      fail()
    }
    const told = taken()
    expect(told.map(({ unlogged, err }) => [unlogged, err])).toEqual([
      [99 + 59, undefined],
      [99 + 119, undefined],
      [99 + 179, undefined],
    ])
    expect(told[0]).toMatchObject({
      level: 40,
      msg: 'the store failed (158 more times; it goes on)',
      cause: 'the database did not answer (unavailable): connect ECONNREFUSED (ECONNREFUSED)',
    })
  })

  it('tells at its end how long it took and what was not logged, and a later one is written whole again', () => {
    const { log, fail, taken } = open()
    for (let s = 0; s < 44; s++, vi.advanceTimersByTime(1_000)) {
      fail()
      log.error({ err: away() }, 'a request failed')
      log.error({ err: away() }, 'a request failed')
    }
    taken()
    log.info({ over: 'unavailable' }, 'the database is back')
    expect(taken()).toEqual([
      expect.objectContaining({
        level: 30,
        for_s: 44,
        unlogged: 43 + 87,
        msg: 'the database is back after 44 s; 130 failures were not logged one by one',
      }),
    ])
    vi.advanceTimersByTime(60_000)
    expect(taken()).toEqual([])
    fail()
    expect(taken()[0]?.err?.stack).toBeDefined()
  })

  it('that comes and goes many times a second is counted all the same', () => {
    const { log, fail, taken } = open()
    for (let i = 0; i < 1_000; i++, vi.advanceTimersByTime(100)) {
      fail()
      log.info({ over: 'unavailable' }, 'the database is back')
    }
    // one whole and one of the end, and of each one count in a minute
    expect(taken().length).toBeLessThanOrEqual(6)
  })

  it('of which nobody says that it ended is told to be over when it stays away', () => {
    const { fail, taken } = open()
    for (let i = 0; i < 3; i++) fail()
    taken()
    vi.advanceTimersByTime(300_000)
    expect(taken().map(({ msg }) => msg)).toEqual([
      'the store failed (2 more times; it goes on)',
      'the store failed (2 more times; no more of it since)',
    ])
    expect(vi.getTimerCount()).toBe(0)
  })

  it('for another reason, at another place, or with other fields is another', () => {
    const { log, fail, lines } = open()
    fail()
    log.warn({ err: away('ENOTFOUND') }, 'the store failed')
    log.warn({ err: away() }, 'the settings were not read')
    log.warn({ err: away(), job: 'retention' }, 'the store failed')
    log.warn({ err: new TypeError('a') }, 'the store failed')
    log.warn({ err: new TypeError('b') }, 'the store failed')
    expect(lines.every(({ err }) => err?.stack !== undefined)).toBe(true)
    expect(lines).toHaveLength(6)
  })

  it('stays bounded in memory, and what operators have to see is written each time', () => {
    const { log, lines } = open()
    for (let i = 0; i < 2_000; i++) log.warn({ device: i }, 'seen')
    for (let i = 0; i < 10; i++) log.warn({ audit: 'token_reused', user_id: 'u' }, 'reported')
    expect(lines).toHaveLength(2_010)
  })

  it('is told when the log ends', () => {
    const { log, fail, taken } = open()
    for (let i = 0; i < 5; i++) fail()
    log.close()
    expect(taken().map(({ msg }) => msg)).toEqual(['the store failed', 'the store failed (4 more times; the log ends)'])
    expect(vi.getTimerCount()).toBe(0)
  })
})
