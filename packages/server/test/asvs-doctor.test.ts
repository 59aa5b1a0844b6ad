/** The rules of `asvs-code.test.ts` do not hold for the doctor, which has its own (OWASP ASVS 5.0; `docs/asvs.md`). */
import { describe, expect, it } from 'vitest'
import { doctor, find, isStatement, relay, shipped, templates, textOf, variable } from '@sealpost/testing/contracts/shipped-sources'

describe('the doctor', () => {
  it('is run by no relay: the package alone hands it on, to the command', () => {
    expect(doctor.length).toBeGreaterThan(8)
    expect(find(relay, /from '[^']*\/doctor\/[^']*'/g)).toEqual(["packages/server/src/index.ts: from './doctor/doctor.ts'"])
    expect(find(shipped, /\bdiagnose\b/g).filter((line) => !line.startsWith('packages/server/src/doctor/'))).toEqual([
      'packages/server/src/index.ts: diagnose',
      'packages/cli/src/commands/doctor.ts: diagnose',
      'packages/cli/src/commands/doctor.ts: diagnose',
    ])
  })

  it('shows nothing secret to whom it looks at, and looks nowhere else than at the addresses of the configuration', () => {
    const network = textOf('packages/server/src/doctor/look-network.ts')
    expect(network).toContain('requestHttps')
    expect(network).not.toMatch(/authorization\b|password|secrets|seed|token|\.write\(|\bmethod:/i)
    // the database gets a password, on the terms of its URL
    expect(textOf('packages/server/src/doctor/look-database.ts')).not.toMatch(/rejectUnauthorized:|\bssl: \{|minVersion/)
    expect(find(doctor, /\b(https?|wss?):\/\/[a-z.]+/g).filter((line) => !line.endsWith('.example'))).toEqual([])
  })

  it('asks the database in constant texts, each alone in a transaction that only reads (1.2.4)', () => {
    const text = textOf('packages/server/src/doctor/look-database.ts')
    // `sql` is what `ask` was given
    expect(templates(text).filter(isStatement).flatMap(variable)).toEqual([`SETTING_NAMES.join("', '")`, 'sql'])
    const [, names = ''] = /const SETTING_NAMES = \[([^\]]*)\] as const/.exec(textOf('packages/server/src/doctor/facts.ts')) ?? []
    expect(names.trim().split(/,\s*/).filter(Boolean).length).toBeGreaterThan(10)
    for (const name of names.trim().split(/,\s*/).filter(Boolean)) expect(name).toMatch(/^'[a-z_]+'$/)
    const asked = [...text.matchAll(/(?<!function )\b(?:ask|one)<[^(]*>\((?:\s*ask,\s*)?([^)]*)\)/g)].map(([, given = '']) =>
      given.trim().replace(/,$/, ''),
    )
    expect(asked.length).toBeGreaterThan(8)
    for (const given of asked) expect(given).toMatch(/^([A-Z]+|sql|'[^']*'|`[^`$]*`)$/)
    expect(find(doctor, /\.query\(.*/g)).toEqual([
      'packages/server/src/doctor/look-database.ts: .query(`begin read only; ${sql}; commit`)) as unknown as { rows: T[] }[]',
    ])
  })
})
