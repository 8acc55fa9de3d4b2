// What builds systems that run from memory: the agent's, and those of tests.
export { ensureAgentImage } from './image/agent.js'
export { ensureImage, type Flavour, type MemoryImage, type Recipe } from './image/build.js'
