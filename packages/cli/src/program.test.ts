import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { EXIT } from './exit-codes.ts'
import { createProgram, report } from './program.ts'

const NAMES = createProgram().commands.map((command) => [command.name()])

const HOME = join(tmpdir(), `sealpost-unused-${process.pid}`)
const WORDS = `${'abandon '.repeat(23)}art`

let stdout = ''
let stderr = ''

/** Parses and runs as the process would; the exit code. */
async function runHere(...args: string[]): Promise<number> {
  try {
    await createProgram().parseAsync(['node', 'sealpost', '--home', HOME, ...args])
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
    [['rename', 'phone', '']],
    [['init', '--server', 'http://127.0.0.1:1', '--name', ' ']],
    [['join', 'K7QM-3XWP-9RTB-D2FH', '--server', 'http://127.0.0.1:1', '--name', '\u200b\u202e', '--yes']],
    [['recover', '--server', 'http://127.0.0.1:1', '--name', '', '--recovery-file', '/nowhere/at/all']],
    [['recover', '--server', 'http://127.0.0.1:1', '--name', 'x', '--recovery-file', '/nowhere/at/all']],
  ])('%j is a mistake: 2, and a way out', async (args) => {
    expect(await runHere(...args)).toBe(2)
    expect(stderr).toMatch(/\w/)
    expect(stdout).toBe('')
    expect(existsSync(HOME)).toBe(false)
  })

  test.each([
    [['status']],
    [['tail']],
    [['devices']],
    [['token']],
    [['pair', '--yes']],
    [['rename', 'a', 'b']],
    [['delete-account', '--yes']],
  ])('%j in a home that is not there: 4, and none is made', async (args) => {
    expect(await runHere(...args)).toBe(4)
    expect(stderr).toMatch(/holds no device\n {2}create an account with sealpost init/)
    expect(existsSync(HOME)).toBe(false)
  })

  test.each([
    ['two words', 'abandon abandon', /has 24 words, these are 2/],
    ['a word that is not on the list', WORDS.replace('art', 'sealpost'), /word 24/],
    ['a word in the wrong place', `art ${'abandon '.repeat(23)}`, /does not add up/],
    ['a whole book', 'abandon '.repeat(600), /more than the 24/],
  ])('recover with %s is refused (3), without an alarm, and makes no home', async (_, words, says) => {
    const file = join(mkdtempSync(join(tmpdir(), 'sealpost-words-')), 'words')
    writeFileSync(file, words)
    try {
      expect(await runHere('recover', '--server', 'http://127.0.0.1:1', '--name', 'x', '--recovery-file', file)).toBe(3)
    } finally {
      rmSync(dirname(file), { recursive: true })
    }
    expect(stderr).toMatch(says)
    expect(stderr).toMatch(/\n {2}check the 24 words and their order\n$/)
    expect(existsSync(HOME)).toBe(false)
  })

  test.each([...NAMES, ['export', 'decrypt']])('%s %s --help has examples', async (...command) => {
    expect(await runHere(...command, '--help')).toBe(0)
    expect(stdout).toMatch(/Examples:\n {2}\$ \S+/)
  })
})

describe('docs/cli.md', () => {
  const page = readFileSync(join(import.meta.dirname, '../../../docs/cli.md'), 'utf8')

  test('names every command with each of its options', () => {
    for (const command of createProgram().commands) {
      expect(page).toMatch(new RegExp(`\`${command.name()}[ \`]`))
      if (command.name() === 'admin') continue
      for (const { long } of command.options)
        expect(`${command.name()}: ${page.includes(`${long}`) ? long : 'missing'}`).toBe(`${command.name()}: ${long}`)
    }
  })

  test('has the exit codes with their meaning', () => {
    const rows = [...page.matchAll(/^\| (\d+) +\| (.*?) +\|$/gm)].map(([, code, says]) => [Number(code), says?.replaceAll('`', '')])
    expect(rows).toEqual(Object.values(EXIT).map(({ code, says }) => [code, says]))
  })
})
