/** Simulated machines and what is needed to have them boot: for tests and the conformance kit. */
export { makeFiles, images } from './scene.js'
export { SimMachine, argumentsOf, type SimMachineOptions } from './sim-machine.js'
export { planSushyEmulator, sushyTools, type SushyPlan } from './bmc/sushy-emulator.js'
