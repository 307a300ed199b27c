// The interval for one window of a TorchScript artifact, by libtorch and with no code of murho's:
//
//   interval model.pt 1000 0.95 < window.txt     1000 draws, at 95 %; in the file a row a line, oldest first
//
// Prints mean, lower and upper for every value that the network predicts.

#include <cstdint>
#include <exception>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/script.h>

torch::Tensor window(std::istream& stream) {  // float32 [1, rows, features], in raw units
  std::vector<float> values;
  int64_t rows = 0;
  for (std::string line; std::getline(stream, line); ++rows) {
    std::istringstream row(line);
    for (float value; row >> value;) values.push_back(value);
    if (!row.eof()) throw std::invalid_argument("line " + std::to_string(rows + 1) + " is not numbers: " + line);
  }
  if (values.empty() || values.size() % rows) throw std::invalid_argument("expected the same count of numbers a line");
  return torch::tensor(values).reshape({1, rows, -1});
}

int main(int argc, char** argv) try {
  if (argc != 4) throw std::invalid_argument("usage: interval MODEL.pt DRAWS LEVEL < WINDOW");
  const c10::InferenceMode inference;
  torch::jit::Module model = torch::jit::load(argv[1]);
  model.eval();

  std::vector<torch::IValue> inputs{
      window(std::cin),
      torch::arange(std::stoll(argv[2])),   // draws: draw 17 is the same network in every call, on every machine
      torch::tensor(int64_t{0}),            // seed
      torch::tensor({std::stof(argv[3])}),  // levels
  };
  const bool noisy = model.get_method("forward").num_inputs() > inputs.size() + 1;  // the module itself counts
  if (noisy) inputs.emplace_back(torch::tensor(1.0f));  // the next observation; 0 for its mean

  const auto answer = model.forward(inputs).toTuple();  // samples [S, 1, O], mean and std [1, O], ends [1, 1, O]
  const auto part = [&](size_t k) { return answer->elements()[k].toTensor().flatten(); };
  const torch::Tensor mean = part(1), lower = part(3), upper = part(4);
  for (int64_t k = 0; k < mean.numel(); ++k) {
    std::cout << mean[k].item<float>() << ' ' << lower[k].item<float>() << ' ' << upper[k].item<float>() << '\n';
  }
} catch (const c10::Error& error) {
  std::cerr << "interval: " << error.what_without_backtrace() << '\n';
  return 1;
} catch (const std::exception& error) {
  std::cerr << "interval: " << error.what() << '\n';
  return 1;
}
