import { describe, expect, it } from 'vitest'
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
