/** The shipped sources as texts, for the tests that hold all of them to a rule. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = join(fileURLToPath(import.meta.url), '..', '..', '..', '..', '..')
export const PACKAGES = ['protocol', 'server', 'client', 'cli'] as const

export function filesBelow(folder: string, skips: (name: string) => boolean): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    if (skips(entry.name)) return []
    const path = join(folder, entry.name)
    return entry.isDirectory() ? filesBelow(path, skips) : [path]
  })
}

export type Source = { path: string; text: string }

/** What is built: `tsconfig.build.json` leaves out the same. */
export const shipped: readonly Source[] = PACKAGES.flatMap((name) =>
  filesBelow(join(ROOT, 'packages', name, 'src'), (entry) => entry.endsWith('.test.ts')),
)
  .filter((path) => path.endsWith('.ts'))
  .map((path) => ({ path: relative(ROOT, path), text: withoutComments(readFileSync(path, 'utf8')) }))
export const server = shipped.filter(({ path }) => path.startsWith('packages/server/'))

/**
 * What a relay runs, and what the doctor does: a command that somebody starts by hand to look at a deployment. To see what others are
 * offered it connects where the relay never would, and takes certificates and versions of TLS that nobody should, without sending
 * anything secret there. So it has rules of its own, and no relay runs it.
 */
export const isDoctor = ({ path }: Source): boolean => path.startsWith('packages/server/src/doctor/')
export const relay = server.filter((source) => !isDoctor(source))
export const doctor = server.filter(isDoctor)
export const textOf = (path: string): string => shipped.find((source) => source.path === path)?.text ?? ''

/** Comments may name what code may not do. Strings with `//` in them are addresses, and stay. */
export function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[\s;{}(,])\/\/.*$/gm, '$1')
}

/** Each place, with its file. */
export function find(sources: readonly Source[], pattern: RegExp): string[] {
  return sources.flatMap(({ path, text }) => [...text.matchAll(pattern)].map(([found]) => `${path}: ${found}`))
}

const SQL = /^\s*(select|insert|update|delete|with|set|create|alter|drop|begin|\$\{[A-Z_]+\} (where|for))\b/i
/** Fixed when the module is loaded: a constant, or a member of a list of constants. */
const CONSTANT = /^(LIMITS|FLAG|[A-Z][A-Z0-9]*(_[A-Z0-9]+)*)(\.\w+)?( [+-] [A-Z_]+)?$/

export function templates(text: string): string[] {
  return [...text.matchAll(/`((?:[^`\\]|\\.)*)`/g)].map(([, inside = '']) => inside)
}
/** What varies in a statement. */
export const variable = (sql: string): string[] =>
  [...sql.matchAll(/\$\{([^}]*)\}/g)].map(([, name = '']) => name).filter((name) => !CONSTANT.test(name))
export const isStatement = (template: string): boolean => SQL.test(template)
