// An exported picture classifier in C++: limbeck's folder in, the class and its calibrated confidence out.
//
//     classify FOLDER PICTURE.pgm      (or .ppm; of the size that the student was trained on)
//
// What a folder from `limbeck export RUN --to onnx` holds, and what of it is read here:
//     model.onnx                  the graph: pixel_values [rows, colours, height, width] to logits [rows, classes]
//     labels.json                 the classes, in the order of the logits
//     limbeck.json                the temperature that logits are divided by
//     preprocessor_config.json    how 0..255 becomes what the graph wants
//
// The engine is ONNX Runtime, or OpenVINO where USE_OPENVINO is defined: both read the same file.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef USE_OPENVINO
#include <openvino/openvino.hpp>
#else
#include <onnxruntime_cxx_api.h>
#endif

using Shape = std::vector<int64_t>;

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

// The numbers behind a key of a JSON file: one, or a list without lists in it. Enough for the files that are read here.
std::vector<double> numbers(const std::string& json, const std::string& key, std::vector<double> otherwise) {
    std::smatch found;
    const std::regex pattern("\"" + key + "\"\\s*:\\s*\\[?([-+0-9.eE,\\s]+)");
    if (!std::regex_search(json, found, pattern)) return otherwise;
    std::string list = found[1];
    std::replace(list.begin(), list.end(), ',', ' ');
    std::istringstream words(list);
    std::vector<double> values;
    for (double value; words >> value;) values.push_back(value);
    return values.empty() ? otherwise : values;
}

// The strings of a JSON list.
std::vector<std::string> strings(const std::string& json) {
    std::vector<std::string> values;
    for (size_t i = 0; i < json.size(); ++i) {
        if (json[i] != '"') continue;
        std::string value;
        for (++i; i < json.size() && json[i] != '"'; ++i) value += json[i] == '\\' ? json[++i] : json[i];
        values.push_back(value);
    }
    return values;
}

struct Picture {
    int64_t colours, height, width;
    std::vector<uint8_t> pixels;  // row by row, the colours of a pixel side by side
};

Picture read_picture(const std::string& path) {
    std::istringstream file(read_file(path));
    std::string kind;
    Picture picture{};
    int most = 0;
    file >> kind >> picture.width >> picture.height >> most;
    if ((kind != "P5" && kind != "P6") || most != 255) throw std::runtime_error(path + " is no PGM or PPM of 0..255");
    file.get();  // one white space, then the pixels
    picture.colours = kind == "P6" ? 3 : 1;
    picture.pixels.resize(picture.colours * picture.height * picture.width);
    if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), picture.pixels.size()))
        throw std::runtime_error(path + " ends too early");
    return picture;
}

// Scaled as in training, and the colours one behind the other.
std::vector<float> prepared(const Picture& picture, const std::string& settings) {
    const auto mean = numbers(settings, "image_mean", {0.5}), std = numbers(settings, "image_std", {0.5});
    const double scale = numbers(settings, "rescale_factor", {1 / 255.0})[0];
    if (mean.size() != static_cast<size_t>(picture.colours)) throw std::runtime_error("another number of colours");
    const int64_t area = picture.height * picture.width;
    std::vector<float> values(picture.pixels.size());
    for (int64_t colour = 0; colour < picture.colours; ++colour)
        for (int64_t i = 0; i < area; ++i)
            values[colour * area + i] =
                static_cast<float>((picture.pixels[i * picture.colours + colour] * scale - mean[colour]) / std[colour]);
    return values;
}

#ifdef USE_OPENVINO
std::vector<float> run(const std::string& model, std::vector<float>& pixels, const Shape& shape) {
    ov::Core core;
    auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = compiled.create_infer_request();
    request.set_tensor("pixel_values", ov::Tensor(ov::element::f32, ov::Shape(shape.begin(), shape.end()), pixels.data()));
    request.infer();
    const ov::Tensor logits = request.get_tensor("logits");
    return {logits.data<float>(), logits.data<float>() + logits.get_size()};
}
#else
std::vector<float> run(const std::string& model, std::vector<float>& pixels, const Shape& shape) {
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "classify");
    Ort::Session session(environment, model.c_str(), Ort::SessionOptions{});
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto input = Ort::Value::CreateTensor<float>(memory, pixels.data(), pixels.size(), shape.data(), shape.size());
    const char* in[] = {"pixel_values"};
    const char* out[] = {"logits"};
    const auto found = session.Run(Ort::RunOptions{}, in, &input, 1, out, 1);
    const float* logits = found[0].GetTensorData<float>();
    return {logits, logits + found[0].GetTensorTypeAndShapeInfo().GetElementCount()};
}
#endif

int main(int count, char** words) try {
    if (count != 3) {
        std::cerr << "classify FOLDER PICTURE.pgm\n";
        return 2;
    }
    const std::string folder = std::string(words[1]) + "/";
    const auto labels = strings(read_file(folder + "labels.json"));
    const double temperature = numbers(read_file(folder + "limbeck.json"), "temperature", {1.0})[0];
    const Picture picture = read_picture(words[2]);
    auto pixels = prepared(picture, read_file(folder + "preprocessor_config.json"));
    const auto logits = run(folder + "model.onnx", pixels, {1, picture.colours, picture.height, picture.width});
    if (logits.size() != labels.size()) throw std::runtime_error("as many logits as labels are wanted");
    const size_t best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    double sum = 0;
    for (const float logit : logits) sum += std::exp((logit - logits[best]) / temperature);
    std::printf("%s %.6f\n", labels[best].c_str(), 1 / sum);
    return 0;
} catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
}
