import { ERROR, type ErrorCode, SealpostError } from '@sealpost/protocol'
import { describe, expect, test } from 'vitest'
import { describeExits, EXIT, failureOf, OUTCOMES, UsageError } from './exit-codes.ts'

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
    ['insecure_permissions', 3],
    ['invalid_config', 2],
    ['internal', 1],
  ] as const)('%s ends with %i', (code, exit) => {
    expect(EXIT[failureOf(new SealpostError(code, 'x')).exit].code).toBe(exit)
  })

  test('a mistake at the command line ends with 2', () => {
    expect(failureOf(new UsageError('wrong', 'do this'))).toMatchObject({ exit: 'usage', message: 'wrong', hint: 'do this' })
  })

  test('a full disk ends with 74, also when the system says so', () => {
    expect(failureOf(Object.assign(new Error('ENOSPC: /secret/place'), { code: 'ENOSPC' })).exit).toBe('disk')
  })

  test('the text of an unexpected error stays inside', () => {
    const failure = failureOf(new TypeError('seed 00ff'))
    expect(failure.exit).toBe('internal')
    expect(`${failure.message}${failure.hint}`).not.toContain('00ff')
  })
})
