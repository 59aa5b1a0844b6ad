/** The tables in `oxlint.config.ts` hold: imports are planted in copies of the rooms, and the linter refuses the wrong ones and no other. */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { ROOT } from '@sealpost/testing/components/programs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RESOURCES, ROOMS } from '../oxlint.config.ts'

type Planted = { file: string; imports: string; refused: boolean }

/** Files of a room, which may be a loose file itself. */
const fileOf = (name: string, room: string, file = 'planted.ts'): string =>
  `packages/${name}/src/${room.endsWith('.ts') ? room : `${room}/${file}`}`
/** A file of `other` as `room` imports it. */
const specifier = (room: string, other: string): string =>
  `${room.endsWith('.ts') ? './' : '../'}${other.endsWith('.ts') ? other : `${other}/planted.ts`}`

/** Each room imports from the lines before its own, and from no room of its own line or of a later one. */
const rooms: Planted[] = Object.entries(ROOMS).flatMap(([name, lines]) =>
  lines.flatMap((line, at) =>
    line.flatMap((room) =>
      lines.flatMap((others, place) =>
        others
          .filter((other) => other !== room)
          .map((other) => ({ file: fileOf(name, room), imports: specifier(room, other), refused: place >= at })),
      ),
    ),
  ),
)

const resources: Planted[] = Object.entries(RESOURCES).flatMap(([path, { together, shared }]) => {
  const [name = '', room = ''] = path.split('/')
  const put = (file: string, imports: string, refused: boolean): Planted => ({ file: fileOf(name, room, file), imports, refused })
  return [
    put('one/routes.ts', '../two/routes.ts', true),
    put('two/routes.ts', '../machinery.ts', false),
    put('machinery.ts', './one/routes.ts', true),
    ...together.flatMap((file) => [put(file, './one/routes.ts', false), put('one/routes.ts', `../${file}`, true)]),
    ...shared.flatMap((folder) => [
      put('one/routes.ts', `../${folder}/routes.ts`, false),
      put(`${folder}/routes.ts`, '../one/routes.ts', true),
    ]),
    // deep below, the folders of the rooms are further up
    put('one/deep/routes.ts', '../../../index.ts', true),
  ]
})

const plant = (file: string, imports: string, refused: boolean): Planted => ({ file: `packages/${file}`, imports, refused })

const others: Planted[] = [
  ...['protocol/src/planted.ts', 'server/src/http/planted.ts', 'client/src/home/planted.ts', 'cli/src/commands/planted.ts'].flatMap(
    (file) => [
      plant(file, '@sealpost/testing/relays/silent-log', true),
      plant(file, '../../../testing/src/relays/silent-log.ts', true),
      plant(file.replace('.ts', '.test.ts'), '@sealpost/testing/relays/silent-log', false),
      plant(file, '@sealpost/protocol', file.startsWith('protocol')),
      plant(file, '@sealpost/server', !file.startsWith('cli/')),
      plant(file, '@sealpost/client', !file.startsWith('cli/')),
      plant(file, '@sealpost/client/node', !file.startsWith('cli/')),
      plant(file, '@sealpost/cli', true),
    ],
  ),
  ...['node:fs', 'ws', 'pg', 'timers/promises', '@sealpost/protocol/node'].flatMap((module) => [
    plant('server/src/core/planted.ts', module, true),
    plant('server/src/relay/planted.ts', module, false),
    plant('client/src/outbox/planted.ts', module, true),
    plant('client/src/node/planted.ts', module, false),
    plant('protocol/src/planted.ts', module, true),
  ]),
  plant('protocol/src/node.ts', 'node:fs', false),
  plant('client/src/outbox/planted.ts', '../node/planted.ts', true),
  plant('server/src/core/planted.test.ts', '../http/planted.ts', false),
  plant('server/test/planted.ts', '../src/http/planted.ts', false),
]

let folder: string
let found: Map<string, string[]>
const all = [...rooms, ...resources, ...others]

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealpost-layers-'))
  await copyFile(join(ROOT, 'oxlint.config.ts'), join(folder, 'oxlint.config.ts'))
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
  const texts = new Map<string, string>()
  for (const { file, imports } of all) texts.set(file, `${texts.get(file) ?? ''}import '${imports}'\n`)
  texts.set('packages/server/src/core/clock.ts', 'export const now = (): number => Date.now()\n')
  texts.set('packages/server/src/store/one.ts', "export { two as one } from './two.ts'\n")
  texts.set('packages/server/src/store/two.ts', "export { one as two } from './one.ts'\n")
  for (const [file, text] of texts) {
    await mkdir(dirname(join(folder, file)), { recursive: true })
    await writeFile(join(folder, file), text)
  }
  found = await lint(folder)
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe('the linter', () => {
  it.each([
    ['an import of a room above or beside', rooms],
    ['an import between resources, or of one by the machinery', resources],
    ['an import of a package that is above, of test code, or of I/O where there is none', others],
  ])('refuses %s, and no other', (_, planted) => {
    const refused = found.get('eslint(no-restricted-imports)') ?? []
    const isRefused = ({ file, imports }: Planted): boolean => refused.includes(`${file}: ${imports}`)
    expect(planted.some((row) => row.refused)).toBe(true)
    expect(planted.filter((row) => isRefused(row) !== row.refused)).toEqual([])
  })

  it('refuses a clock in the core, and files that import each other', () => {
    expect(found.get('eslint(no-restricted-globals)')).toEqual(['packages/server/src/core/clock.ts: '])
    expect(found.get('import(no-cycle)')).toEqual(
      expect.arrayContaining(['packages/server/src/store/one.ts: ./two.ts', 'packages/server/src/store/two.ts: ./one.ts']),
    )
  })

  it('does not begin where a room has no place in the tables', async () => {
    await mkdir(join(folder, 'packages/server/src/utils'))
    await writeFile(join(folder, 'packages/server/src/utils/planted.ts'), 'export {}\n')
    await expect(lint(folder)).rejects.toThrow('packages/server/src/utils has no place')
  })
})

/** Per rule: where it holds against what. */
async function lint(cwd: string): Promise<Map<string, string[]>> {
  const args = [join(ROOT, 'node_modules/oxlint/bin/oxlint'), '--quiet', '--format=json']
  const text = await new Promise<string>((resolve) => {
    execFile(process.execPath, args, { cwd, maxBuffer: 64 * 2 ** 20 }, (_, stdout, stderr) => resolve(stdout + stderr))
  })
  if (!text.startsWith('{')) throw new Error(text)
  const { diagnostics } = JSON.parse(text) as { diagnostics: { code: string; filename: string; labels: { span: { line: number } }[] }[] }
  const rules = new Map<string, string[]>()
  for (const { code, filename, labels } of diagnostics) {
    const lines = readFileSync(join(cwd, filename), 'utf8').split('\n')
    const [, imports = ''] = /'(.+)'/.exec(lines[(labels[0]?.span.line ?? 0) - 1] ?? '') ?? []
    rules.set(code, [...(rules.get(code) ?? []), `${filename}: ${imports}`])
  }
  return rules
}
