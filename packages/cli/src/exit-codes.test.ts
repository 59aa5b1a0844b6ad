import { ERROR, type ErrorCode, SealpostError } from '@sealpost/protocol'
import { describe, expect, test } from 'vitest'
import { advise, advised, describeExits, EXIT, failureOf, OUTCOMES, UsageError } from './exit-codes.ts'

describe('exit codes', () => {
  test('are the documented ones', () => {
    expect(Object.values(EXIT).map(({ code }) => code)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 69, 74, 75])
    for (const { code, says } of Object.values(EXIT)) expect(describeExits()).toMatch(new RegExp(`^ +${code}  ${says}$`, 'm'))
  })

  test.each(Object.keys(ERROR) as ErrorCode[])('%s has an exit code other than 0 and says what to do', (code) => {
    const failure = failureOf(new SealpostError(code, 'a sentence'))
    expect(EXIT[failure.exit].code).not.toBe(0)
    expect(failure.message).toBe('a sentence')
    expect(failure.hint).toMatch(/\w+ .*\w+/)
  })

  test('every row belongs to an error code', () => {
    expect(Object.keys(OUTCOMES).sort()).toEqual(Object.keys(ERROR).sort())
  })

  test.each([
    ['not_paired', 4],
    ['device_revoked', 4],
    ['server_identity', 5],
    ['log_fork', 6],
    ['unreachable', 69],
    ['disk', 74],
    ['state_damaged', 74],
    ['state_newer', 74],
    ['queued', 75],
    ['too_large', 3],
    ['invalid_words', 3],
    ['insecure_permissions', 3],
    ['invalid_config', 2],
    ['internal', 1],
  ] as const)('%s ends with %i', (code, exit) => {
    expect(EXIT[failureOf(new SealpostError(code, 'x')).exit].code).toBe(exit)
  })

  test('a mistake at the command line ends with 2', () => {
    expect(failureOf(new UsageError('wrong', 'do this'))).toMatchObject({ exit: 'usage', message: 'wrong', hint: 'do this' })
  })

  test('a command says what a failure means in its place, the nearest word counts; other codes keep the row of the table', () => {
    const inner = advise({ not_found: { hint: 'sealpost devices lists them' } })
    const outer = advise({ not_found: { exit: 'usage', hint: 'elsewhere' }, expired: { exit: 'usage' } })
    const thrownBy = (work: () => void): unknown => {
      try {
        return work()
      } catch (error) {
        return error
      }
    }
    const through = (error: SealpostError): unknown => thrownBy(() => outer(thrownBy(() => inner(error))))
    const found = failureOf(through(new SealpostError('not_found', 'a sentence')))
    expect(found).toEqual({ exit: 'refused', hint: 'sealpost devices lists them', message: 'a sentence', code: 'not_found' })
    expect(failureOf(through(new SealpostError('expired', 'x')))).toMatchObject({ exit: 'usage', hint: OUTCOMES.expired.hint })
    expect(failureOf(through(new SealpostError('disk', 'x')))).toMatchObject(OUTCOMES.disk)
    expect(failureOf(advised(new SealpostError('disk', 'x'), { exit: 'usage' })).exit).toBe('usage')
  })

  test('a hint that the cause gave goes before every other, also through an error of the same code that was made of it', () => {
    const cause = new SealpostError('disk', 'x', { hint: 'empty the bin', retry_after_ms: 1_000 })
    expect(failureOf(advised(cause, { exit: 'usage', hint: 'elsewhere' }))).toMatchObject({ exit: 'usage', hint: 'empty the bin' })
    expect(failureOf(new SealpostError('disk', 'y', { cause }))).toMatchObject({ hint: 'empty the bin' })
    expect(
      failureOf(new SealpostError('internal', 'y', { cause: new SealpostError('disk', 'x', { hint: 'empty the bin' }) })),
    ).toMatchObject({
      hint: OUTCOMES.internal.hint,
    })
  })

  test.each([
    [0, '1 second'],
    [1_001, '2 seconds'],
    [119_000, '119 seconds'],
    [3_540_000, '59 minutes'],
    [3_540_001, '60 minutes'],
    [7_200_000, '2 hours'],
    [86_400_000, '24 hours'],
  ])('where the server said when to try again (%i ms) the hint is that: %s', (retry_after_ms, says) => {
    const refused = new SealpostError('rate_limited', 'x', { retry_after_ms })
    expect(failureOf(refused)).toMatchObject({ exit: 'refused', hint: `try again in ${says}` })
  })

  test('a full disk ends with 74, also when the system says so', () => {
    const error = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', syscall: 'write' })
    expect(failureOf(error)).toMatchObject({
      exit: 'disk',
      message: 'the output failed: the disk is full',
      hint: expect.stringContaining('free some space'),
    })
  })

  test('the text of an unexpected error stays inside', () => {
    const failure = failureOf(new TypeError('seed 00ff'))
    expect(failure.exit).toBe('internal')
    expect(`${failure.message}${failure.hint}`).not.toContain('00ff')
  })
})
