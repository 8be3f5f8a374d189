package com.larqrep.benchmark;

import com.larqrep.benchmark.core.Engine;
import com.larqrep.benchmark.core.EngineException;
import com.larqrep.benchmark.core.Model;
import com.larqrep.benchmark.core.ModelFile;
import com.larqrep.benchmark.core.Options;
import com.larqrep.runtime.LarqRepDelegate;
import java.util.List;
import org.tensorflow.lite.TensorFlowLite;

/** The native side: TFLite and the delegate. Tests put another in its place. */
class Machine {
  /** Bytes of a page of memory; 0 if not known. */
  long pageSize() {
    return DeviceInfo.pageSize();
  }

  /** {@code PowerManager.THERMAL_STATUS_*}. */
  int thermalStatus(android.content.Context context) {
    return Newer.thermalStatus(context);
  }

  /**
   * Instruction sets of this processor, the fastest first.
   *
   * @throws LinkageError if the libraries cannot be loaded
   */
  List<String> implementations() {
    return LarqRepDelegate.implementations();
  }

  /**
   * Version of TFLite.
   *
   * @throws LinkageError if the library cannot be loaded
   */
  String tfliteVersion() {
    return TensorFlowLite.runtimeVersion();
  }

  /**
   * Loads a network.
   *
   * @param hint what to add if a library cannot be loaded
   */
  Model open(ModelFile file, Options options, String hint) throws EngineException {
    return new Engine(file, options, hint);
  }
}
