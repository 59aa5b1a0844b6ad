/**
 * What the linter holds the sources to. The tables come first: which package imports which, and the rooms of a package from the bottom
 * up. The rules on imports are made of them for each file that there is. A package or room that stands in no table stops the check.
 *
 * Test code may import everything. `test/layers.test.ts` plants wrong imports and sees them refused.
 */
import { readdirSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join, sep } from 'node:path'
import { defineConfig, type OxlintOverride } from 'oxlint'

// ---------------------------------------------------------------- tables

/** Each package and what it may import of ours. None imports packages/testing. */
export const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  protocol: [],
  server: ['protocol'],
  client: ['protocol'],
  cli: ['protocol', 'client', 'server'],
}

/** Rooms and loose files of a package, from the bottom up: each imports from lines before its own alone. */
export const ROOMS: Readonly<Record<string, readonly (readonly string[])[]>> = {
  server: [
    ['telemetry'],
    ['audit'],
    ['ports'],
    ['core'],
    ['ingest'],
    ['bus'],
    ['limits'],
    ['store', 'relay'],
    ['jobs'],
    ['config'],
    ['data'],
    ['http'],
    ['gateway'],
    ['admin'],
    ['api'],
    ['doctor'],
    ['server.ts'],
    ['workers'],
    ['serve.ts'],
    ['index.ts'],
  ],
  client: [
    ['ports.ts', 'failure.ts', 'mutex.ts'],
    ['signal.ts'],
    ['connection'],
    ['notices.ts'],
    ['log'],
    ['outbox'],
    ['inbox'],
    ['home'],
    ['account'],
    ['surface'],
    ['index.ts', 'node'],
    ['node.ts'],
  ],
}

/** Rooms with a folder for each resource: the files that put them together, and the folders that all resources may import. */
export const RESOURCES: Readonly<Record<string, { together: readonly string[]; shared: readonly string[] }>> = {
  'server/http': { together: ['http.ts', 'contracts.ts'], shared: ['auth'] },
  'server/admin': { together: ['admin-http.ts', 'contracts.ts'], shared: [] },
}

/** Rooms that know neither Node nor anything that opens a file, a socket or a database. */
const NO_IO: Readonly<Record<string, { says: string; holds(room: string): boolean }>> = {
  protocol: { says: 'The protocol package does no I/O.', holds: (room) => room !== 'node.ts' },
  server: { says: 'The core is pure: no clock, no socket, no database.', holds: (room) => room === 'core' },
  client: {
    says: 'The engine runs in browsers too: what needs Node is behind a port, in node/.',
    holds: (room) => room !== 'node' && room !== 'node.ts',
  },
}

const IO = [...builtinModules, 'ws', 'pg', 'ioredis', 'fastify', 'pino', '@sealpost/protocol/node']

/** Time and chance come into the core as inputs. */
const NOT_IN_CORE = ['Date', 'setTimeout', 'setInterval', 'setImmediate', 'queueMicrotask', 'process', 'performance', 'fetch']

const TEST_CODE = ['**/*.test.ts', 'test/**', 'packages/*/test/**', 'packages/testing/**']

// ---------------------------------------------------------------- the rules that are made of them

type Pattern = { regex: string; message: string }

/** All but packages/testing. */
const packages = readdirSync(join(import.meta.dirname, 'packages')).filter((name) => name !== 'testing')

function rulesOf(name: string): OxlintOverride[] {
  const src = join(import.meta.dirname, 'packages', name, 'src')
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) => /(?<!\.test)\.ts$/.test(file))
  const paths = files.map((file) => file.split(sep))
  return paths.map((path) => {
    const patterns = [...ofPackage(name, path), ...ofRooms(name, path), ...ofResources(name, path, paths), ...ofPurity(name, path)]
    return { files: [`packages/${name}/src/${path.join('/')}`], rules: { 'no-restricted-imports': ['error', { patterns }] } }
  })
}

function ofPackage(name: string, path: readonly string[]): Pattern[] {
  const may = PACKAGES[name]
  if (may === undefined) throw new Error(`packages/${name} has no place in oxlint.config.ts`)
  const others = [...Object.keys(PACKAGES), 'testing'].filter((other) => !may.includes(other))
  const message = `packages/${name} imports ${may.length === 0 ? 'no other package of ours' : `${may.join(', ')} of our packages, by name`}.`
  return [{ regex: `^(@sealpost/(${others.join('|')})(/|$)|(\\.\\./){${path.length}})`, message }]
}

function ofRooms(name: string, path: readonly string[]): Pattern[] {
  const lines = ROOMS[name]
  if (lines === undefined) return []
  const [room = ''] = path
  const line = lines.findIndex((rooms) => rooms.includes(room))
  if (line === -1) throw new Error(`packages/${name}/src/${room} has no place in oxlint.config.ts`)
  const above = lines.slice(line).flat()
  const others = above.filter((other) => other !== room)
  return refuse(path.length - 1, others, `What ${room} needs of a room above comes in as a parameter.`)
}

function ofResources(name: string, [room = '', ...path]: readonly string[], all: readonly (readonly string[])[]): Pattern[] {
  const rule = RESOURCES[`${name}/${room}`]
  if (rule === undefined) return []
  const resources = new Set(all.filter((other) => other[0] === room && other.length > 2).map(([, resource = '']) => resource))
  const [own = ''] = path
  if (path.length === 1)
    return rule.together.includes(own) ? [] : refuse(0, [...resources], 'The machinery knows no resource that is put upon it.')
  const others = [...resources, ...rule.together].filter((other) => other !== own && !rule.shared.includes(other))
  return refuse(path.length - 1, others, 'A resource knows no other one: what they share stands beside their folders.')
}

function ofPurity(name: string, [room = '']: readonly string[]): Pattern[] {
  const rule = NO_IO[name]
  return rule?.holds(room) === true ? [{ regex: `^(node:|(${IO.join('|')})(/|$))`, message: rule.says }] : []
}

/** Specifiers of these folders and files, which stand so many folders up from the importing one. */
function refuse(up: number, names: readonly string[], message: string): Pattern[] {
  const ends = names.map((name) => (name.endsWith('.ts') ? `${name.replace('.', '\\.')}$` : `${name}/`))
  return ends.length === 0 ? [] : [{ regex: `^${up === 0 ? '\\./' : `(\\.\\./){${up}}`}(${ends.join('|')})`, message }]
}

export default defineConfig({
  plugins: ['typescript', 'import', 'unicorn', 'promise'],
  categories: { correctness: 'error', suspicious: 'error' },
  rules: {
    'import/no-cycle': 'error',
    'import/no-default-export': 'error',
    'import/no-unassigned-import': 'off',
    'import/no-named-as-default-member': 'off',
    'typescript/no-floating-promises': 'error',
    'typescript/no-misused-promises': 'error',
    'typescript/no-explicit-any': 'error',
    'typescript/no-non-null-assertion': 'error',
    'typescript/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
    'typescript/no-unsafe-type-assertion': 'off',
    'typescript/consistent-return': 'off',
    'typescript/unbound-method': 'off',
    'no-shadow': 'off',
    'no-await-in-loop': 'off',
    'no-underscore-dangle': 'off',
    'unicorn/no-array-sort': 'off',
    'unicorn/no-array-reverse': 'off',
    'unicorn/consistent-function-scoping': 'off',
    'unicorn/require-module-specifiers': 'off',
    'promise/always-return': 'off',
    'no-restricted-properties': [
      'error',
      {
        object: 'Math',
        property: 'random',
        message: "Use the crypto port's random bytes; jitter takes its source as a parameter.",
      },
    ],
  },
  overrides: [
    ...packages.flatMap(rulesOf),
    {
      files: ['packages/server/src/core/**/*.ts'],
      excludeFiles: TEST_CODE,
      rules: {
        'no-restricted-globals': [
          'error',
          ...NOT_IN_CORE.map((name) => ({ name, message: 'The core is pure: time and chance come in as inputs.' })),
        ],
      },
    },
    { files: TEST_CODE, rules: { 'typescript/no-non-null-assertion': 'off' } },
    { files: ['vitest.config.ts', 'oxlint.config.ts'], rules: { 'import/no-default-export': 'off' } },
  ],
  ignorePatterns: ['dist', 'coverage', 'node_modules'],
})
