export { simulatedRackAdapter as default } from './simulated.js'
