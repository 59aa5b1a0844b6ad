/** `docs/asvs.md` has every requirement of the levels 1 and 2 once, and names tests that are there. */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { SECURITY_ACTIONS } from '../packages/server/src/audit/actions.ts'
import ids from './asvs-ids.json' with { type: 'json' }

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const page = readFileSync(`${ROOT}docs/asvs.md`, 'utf8')

type Row = { id: string; level: number; what: string; by: string }

const rows: Row[] = page
  .split('\n')
  .map((line) => /^\| (\d+\.\d+\.\d+) \| (.*?) \| (.*?) \| (.*) \|$/.exec(line))
  .filter((found) => found !== null)
  .map(([, id = '', level = '', what = '', by = '']) => ({ id, level: Number(level), what, by }))

const isTested = ({ by }: Row): boolean => by.startsWith('`')
const isApplicable = ({ by }: Row): boolean => !by.startsWith('n/a: ')

describe('the page of ASVS 5.0', () => {
  it('has every requirement of level 1 and 2 exactly once, with its level', () => {
    expect(rows.length).toBe(Object.keys(ids).length)
    expect(Object.fromEntries(rows.map(({ id, level }) => [id, level]))).toEqual(ids)
    expect(Object.values(ids).every((level) => level === 1 || level === 2)).toBe(true)
  })

  it('has no row that is empty or of another form', () => {
    for (const { id, what, by } of rows) {
      expect([id, what]).toEqual([id, expect.stringMatching(/^\S+( \S+){1,9}$/)])
      expect([id, by]).toEqual([
        id,
        expect.stringMatching(/^(n\/a: \S.{4,}|no test: \S.{9,}|(`[^`]+\.test\.ts` › "[^"]{8,}"(<br>(?=`)|$))+)$/),
      ])
    }
    // nothing that looks like a row is left out
    expect(page.split('\n').filter((line) => /^\|\s*\d/.test(line) && !/^\| (\d+\.\d+\.\d+|[12]|1 and 2) \|/.test(line))).toEqual([])
  })

  it.each(rows.filter(isTested).map((row) => [row.id, row] as const))('%s names tests that are there', (_, { by }) => {
    for (const reference of by.split('<br>')) {
      const [, path = '', title = ''] = /^`([^`]+)` › "([^"]+)"$/.exec(reference) ?? []
      expect([path, existsSync(`${ROOT}${path}`)]).toEqual([path, true])
      // in a text of that file, which a title is, and not in a comment
      const lines = readFileSync(`${ROOT}${path}`, 'utf8').split('\n')
      expect([path, title, lines.some((line) => isInText(line, title))]).toEqual([path, title, true])
    }
  })

  it('a title that is not there would be noticed', () => {
    expect(isInText("  it('states the rule', async () => {", 'states the rule')).toBe(true)
    expect(isInText('  // states the rule', 'states the rule')).toBe(false)
    expect(isInText("  it('states another', async () => {", 'states the rule')).toBe(false)
  })

  it('counts what is in its tables', () => {
    const count = (of: Row[]): string => {
      const applicable = of.filter(isApplicable)
      const tested = applicable.filter(isTested)
      const share = ((100 * tested.length) / applicable.length).toFixed(1)
      return `${of.length} | ${of.length - applicable.length} | ${applicable.length} | ${tested.length} | ${share} % |`
    }
    for (const level of [1, 2]) expect(page).toContain(`| ${level} | ${count(rows.filter((row) => row.level === level))}`)
    expect(page).toContain(`| 1 and 2 | ${count(rows)}`)
  })

  it.each([
    ['level 1', [1], 40],
    ['level 2', [2], 100],
    ['both', [1, 2], 150],
  ])('has a test for at least 90 %% of what applies: %s', (_, levels, applicable_min) => {
    const applicable = rows.filter(({ level }) => levels.includes(level)).filter(isApplicable)
    expect(applicable.length).toBeGreaterThan(applicable_min)
    expect(applicable.filter(isTested).length / applicable.length).toBeGreaterThanOrEqual(0.9)
  })

  it('says whose the numbering is, and that nobody else has assessed it', () => {
    for (const said of ['Application Security Verification Standard, version 5.0.0', 'OWASP', 'CC BY-SA 4.0', 'self-assessed'])
      expect(page.replace(/\s+/g, ' ')).toContain(said)
    expect(page).not.toMatch(/\b(?:is|was|are) (?:certified|audited)\b/i)
  })

  it('each audited event is named on the page, and no other (16.1.1)', () => {
    const [line = ''] = /^\| audited events \|.*$/m.exec(page) ?? []
    const named = [...line.matchAll(/`(\w+_\w+)`/g)].map(([, name = '']) => name)
    expect(named.toSorted()).toEqual(Object.keys(SECURITY_ACTIONS).toSorted())
  })
})

function isInText(line: string, title: string): boolean {
  const at = line.indexOf(title)
  return at > 0 && /['"`]/.test(line.slice(0, at)) && !/^\s*(\/\/|\*)/.test(line)
}
