/** What is between the relay and an external PostgreSQL, by how long it lends a server (docs/operations/pooler.md). */
export const POOLERS = ['off', 'session', 'transaction'] as const
export type Pooler = (typeof POOLERS)[number]
