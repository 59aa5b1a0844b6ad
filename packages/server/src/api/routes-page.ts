/** `docs/routes.md`: every route, and who gets what; made of the lists that the router and the tests go by. */
import { ROUTES, type Route, type RouteName } from '@sealpost/protocol'
import { ASSERTIONS, FOREIGN, type Refused, RIGHT_BY_ID, TOKENS } from '../http/auth/access-matrix.ts'
import { problemsOf } from '../http/contract.ts'
import { CONTRACTS } from '../http/contracts.ts'

const CREDENTIAL = { none: '–', assertion: 'assertion', token: 'token' } as const

export function routesPage(): string {
  const routes = Object.entries(ROUTES) as [RouteName, Route][]
  const rows = routes.map(([name, row]) => {
    const bound = row.body === 'none' ? '–' : String(row.bodyBytesMax)
    const codes = problemsOf(row, CONTRACTS[name]).map((code) => `\`${code}\``)
    return `| \`${row.method} ${row.path}\` | ${CREDENTIAL[row.auth]} | ${bound} | ${row.unlimited ? 'no' : 'yes'} | ${row.says} | ${codes.join(' ')} | ${row.again ?? 'It changes nothing.'} |`
  })
  const named = (auth: Route['auth']): string =>
    routes
      .filter(([, row]) => row.auth === auth)
      .map(([name]) => `\`${name}\``)
      .join(', ')
  return `# Routes, and who gets what

This page is made of [\`routes.ts\`](../packages/protocol/src/routes.ts), the contracts and [\`access-matrix.ts\`](../packages/server/src/http/auth/access-matrix.ts) by
\`node scripts/run.mjs docs\`. \`packages/server/test/access.test.ts\` drives every cell of the matrices on a running server; the members and bounds of each
request and answer are in [\`api/openapi.json\`](api/openapi.json).

| route | credential | body, bytes at most | limited | what it does | refusals | when the answer was lost |
|---|---|---|---|---|---|---|
${rows.join('\n')}

## A credential in place of a good token

On each of ${named('token')}. Whatever is asked for, the answer is the same, byte for byte but for the request id.

${refusals(Object.values(TOKENS))}

## An assertion in place of the right one

On each of ${named('assertion')}.

${refusals(Object.values(ASSERTIONS))}

## Ids of others

With a good token (or assertion) of one's own. An id that nobody has is answered in the same way, so that none can be found by trying.

| route | what | is given | status | code |
|---|---|---|---|---|
${FOREIGN.map(({ route, id, says, status, code }) => `| \`${route}\` | \`${id}\` | ${says} | ${status} | \`${code}\` |`).join('\n')}

In an answer of 200 the code stands in its \`nack\`; \`reset\` says that the place is not one of this account.

Whoever knows the id of a mailbox has the pairing code: there the id itself is the right.

| route | what it does | a mailbox of another device | of nobody |
|---|---|---|---|
${RIGHT_BY_ID.map(({ route, says, known, unknown }) => `| \`${route}\` | ${says} | ${known} | ${unknown} |`).join('\n')}
`
}

function refusals(rows: readonly Refused[]): string {
  return `| what is shown | status | code |\n|---|---|---|\n${rows.map(({ says, status, code }) => `| ${says} | ${status} | \`${code}\` |`).join('\n')}`
}
