import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createProgram, report } from './program.ts'

const NAMES = ['serve', 'init', 'pair', 'join', 'send', 'tail', 'devices', 'revoke', 'status']

let stdout = ''
let stderr = ''

/** Parses and runs as the process would; the exit code. */
async function runHere(...args: string[]): Promise<number> {
  try {
    await createProgram().parseAsync(['node', 'sealpost', '--home', join(tmpdir(), 'sealpost-unused'), ...args])
    return 0
  } catch (error) {
    return report(error)
  }
}

beforeEach(() => {
  stdout = ''
  stderr = ''
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += String(text)
    return true
  })
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += String(text)
    return true
  })
})
afterEach(() => {
  vi.restoreAllMocks()
})

describe('the command line', () => {
  test.each([
    [[]],
    [['nonsense']],
    [['send', '--nonsense']],
    [['init', '--name', 'x']],
    [['init', '--server', 'http://127.0.0.1:1', '--name', 'x', '--type', 'toaster']],
    [['join']],
    [['send', '--ttl', 'soon']],
    [['send', '--stream', 'not a name']],
    [['tail', '--from', 'nowhere']],
    [['tail', '--count', '0']],
    [['tail', '--idle-exit', 'x']],
    [['send', '/nowhere/at/all']],
  ])('%j is a mistake: 2, and a way out', async (args) => {
    expect(await runHere(...args)).toBe(2)
    expect(stderr).toMatch(/\w/)
    expect(stdout).toBe('')
  })

  test.each(NAMES)('%s --help has examples', async (command) => {
    expect(await runHere(command, '--help')).toBe(0)
    expect(stdout).toMatch(/Examples:\n {2}\$ \S+/)
  })
})
