import { AutoModelForCausalLM } from "../../mod.ts";
import { recordedTests } from "./recorded.ts";
import { reportSkipped } from "./support.ts";

recordedTests({ arch: "llama4", auto: AutoModelForCausalLM, refuses: ["flash_attention_2"] });
reportSkipped();
