import java.io.File;
import java.io.FileInputStream;
import java.io.InputStream;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import org.codehaus.mojo.animal_sniffer.SignatureChecker;
import org.codehaus.mojo.animal_sniffer.logging.PrintWriterLogger;

/** {@code ApiCheck SIGNATURES FILE...} prints each call in a jar or class file of what the signatures lack. */
public final class ApiCheck {
  public static void main(String[] arguments) throws Exception {
    try (InputStream signatures = new FileInputStream(arguments[0])) {
      SignatureChecker checker =
          new SignatureChecker(
              signatures,
              new HashSet<>(Arrays.asList("com.larqrep.*", "org.tensorflow.*")),
              new PrintWriterLogger(System.out));
      checker.setSourcePath(Collections.emptyList());
      // Classes with this annotation ask for the device's level before each call.
      checker.setAnnotationTypes(Arrays.asList("android.annotation.TargetApi"));
      for (String file : Arrays.asList(arguments).subList(1, arguments.length)) {
        checker.process(new File(file));
      }
    }
  }
}
