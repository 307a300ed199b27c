// Runs the conformance file with libtorch: conformance FOLDER [--latency ARTIFACT]
//
// The last line that it prints is JSON: for each case the largest differences from the expected values, and with
// --latency the median time of a call for one row. Exits with 1 where a case failed.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <torch/script.h>
#include <torch/version.h>

using nlohmann::json;
using Inputs = std::vector<torch::IValue>;

const std::vector<std::string> OUTPUTS{"samples", "mean", "std", "lower", "upper"};
constexpr int CALLS = 50, WARMING = 10;

torch::Tensor shaped(const json& array) {  // float64
  return torch::tensor(array.at("data").get<std::vector<double>>()).reshape(array.at("shape").get<std::vector<int64_t>>());
}

torch::Tensor seed(const json& part) { return torch::tensor(int64_t{std::stoll(part.at("seed").get<std::string>())}); }

torch::jit::Module loaded(const std::filesystem::path& path) {
  torch::jit::Module module = torch::jit::load(path.string());
  module.eval();
  return module;
}

bool words_exact(const std::filesystem::path& folder, const json& generator) {
  const auto draws = torch::tensor(generator.at("draws").get<std::vector<int64_t>>());
  const auto words = loaded(folder / "generator.pt").forward({draws, seed(generator)}).toTensor();
  const auto expected = torch::tensor(generator.at("words").get<std::vector<int64_t>>());
  return torch::equal(words, expected.reshape(generator.at("shape").get<std::vector<int64_t>>()));
}

Inputs inputs_of(const json& test, const torch::Tensor& draws) {
  Inputs inputs;
  for (const auto& array : test.at("inputs")) inputs.emplace_back(shaped(array).to(torch::kFloat32));
  inputs.emplace_back(draws);
  inputs.emplace_back(seed(test));
  inputs.emplace_back(torch::tensor(test.at("levels").get<std::vector<double>>()).to(torch::kFloat32));
  if (!test.at("noise").is_null()) inputs.emplace_back(torch::tensor(test.at("noise").get<float>()));
  return inputs;
}

json checked(const std::filesystem::path& folder, const json& test) {
  torch::jit::Module module = loaded(folder / (test.at("artifact").get<std::string>() + ".pt"));
  const auto draws = torch::tensor(test.at("draws").get<std::vector<int64_t>>());
  const auto found = module.forward(inputs_of(test, draws)).toTuple();
  json largest = json::object();
  bool passed = found->elements().size() == OUTPUTS.size();
  for (size_t k = 0; passed && k < OUTPUTS.size(); ++k) {
    const auto values = found->elements()[k].toTensor();
    const json& expected = test.at("expected").at(OUTPUTS[k]);
    const auto want = shaped(expected);
    passed = values.sizes() == want.sizes();
    if (!passed) break;
    const double difference = (values.to(torch::kFloat64) - want).abs().max().item<double>();
    largest[OUTPUTS[k]] = difference;
    passed = difference <= expected.at("limit").get<double>();  // NaN is not
  }
  return {{"name", test.at("name")}, {"largest", largest}, {"passed", passed}};
}

double latency(torch::jit::Module& module, const json& test, int64_t count) {  // median, in ms
  const Inputs inputs = inputs_of(test, torch::arange(count));
  std::vector<double> times;
  double total = 0;
  for (int call = 0; call < WARMING + CALLS; ++call) {
    const auto start = std::chrono::steady_clock::now();
    total += module.forward(inputs).toTuple()->elements()[1].toTensor().sum().item<double>();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
    if (call >= WARMING) times.push_back(time.count());
  }
  if (!std::isfinite(total)) throw std::runtime_error("the timed calls gave no finite mean");
  std::nth_element(times.begin(), times.begin() + CALLS / 2, times.end());
  return times[CALLS / 2];
}

int main(int argc, char** argv) try {
  const bool timed = argc == 4 && std::string(argv[2]) == "--latency";
  if (argc != 2 && !timed) throw std::invalid_argument("usage: conformance FOLDER [--latency ARTIFACT.pt]");
  const c10::InferenceMode inference;
  const std::filesystem::path folder = argv[1];
  const json wanted = json::parse(std::ifstream(folder / "conformance.json"));
  json report{{"host", "cpp-libtorch"}, {"version", std::string("libtorch ") + TORCH_VERSION}, {"cases", json::array()}};
  bool passed = report["words_exact"] = words_exact(folder, wanted.at("generator"));
  for (const auto& test : wanted.at("cases")) {
    report["cases"].push_back(checked(folder, test));
    passed = passed && report["cases"].back()["passed"];
  }
  report["passed"] = passed;
  if (timed) {
    torch::jit::Module module = loaded(argv[3]);
    const auto& cases = wanted.at("cases");
    const auto test = std::find_if(cases.begin(), cases.end(), [](const json& one) { return one.at("name") == "lstm"; });
    if (test == cases.end()) throw std::runtime_error("the conformance file has no case 'lstm'");
    for (const int64_t count : {256, 1000}) report["latency_ms"][std::to_string(count)] = latency(module, *test, count);
  }
  std::cout << report.dump() << '\n';
  return passed ? 0 : 1;
} catch (const c10::Error& error) {
  std::cerr << "conformance: " << error.what_without_backtrace() << '\n';
  return 2;
} catch (const std::exception& error) {
  std::cerr << "conformance: " << error.what() << '\n';
  return 2;
}
