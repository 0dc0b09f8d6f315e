import { AutoModelForCausalLM } from "../../mod.ts";
import { recordedTests } from "./recorded.ts";
import { reportSkipped } from "./support.ts";

recordedTests({ arch: "mistral", auto: AutoModelForCausalLM });
reportSkipped();
